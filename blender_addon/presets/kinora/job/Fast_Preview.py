import bpy

settings = bpy.context.scene.kinora

settings.clip.frame_step = 2
settings.clip.long_side = 256
settings.engine_classical.movers_as_cards = False
settings.engine_monst3r.mode = "preview"
settings.engine_mast3r.scene_graph = "logwin"
settings.engine_mast3r.neighbours = 3
settings.engine_mast3r.refine_camera = False
settings.engine_point3r.refine_path = False
settings.engine_point3r.close_loops = False
settings.engine_point3r.refine_camera = False
