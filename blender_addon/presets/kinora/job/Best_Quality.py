import bpy

settings = bpy.context.scene.kinora

settings.clip.frame_step = 1
settings.clip.long_side = 768
settings.engine_classical.max_features = 1000
settings.engine_classical.movers_as_cards = True
settings.engine_monst3r.mode = "full"
settings.engine_monst3r.neighbours = 7
settings.engine_monst3r.flow = "raft_large"
settings.engine_monst3r.refine_camera = True
settings.engine_mast3r.neighbours = 10
settings.engine_mast3r.refine_camera = True
settings.engine_point3r.refine_path = True
settings.engine_point3r.close_loops = True
settings.engine_point3r.refine_camera = True
