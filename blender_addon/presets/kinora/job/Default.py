import bpy

settings = bpy.context.scene.kinora

settings.property_unset("engine")
engines = (settings.engine_classical, settings.engine_monst3r, settings.engine_mast3r, settings.engine_point3r)
for group in (settings.lens, *engines):
    for setting in group.bl_rna.properties:
        group.property_unset(setting.identifier)
settings.clip.property_unset("frame_step")
settings.clip.property_unset("long_side")
