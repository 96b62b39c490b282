"""Remove Import: what an import has put into scenes goes, then everything of it; what is the artist's stays."""

from __future__ import annotations

import bpy

from .behind_movers import remove_behind_movers
from .belongings import ELEMENTS, marked, remove_import
from .exchange import nodes_with
from .imported import PLATE, Imported
from .markers import has_markers, remove_markers
from .strips import strips_of


def take_out(imported: Imported) -> None:
    """Take an import out of the file, with its markers, strips and nodes in every scene.

    A node of it that the artist connected to others stays, with the pictures that it shows.
    """
    for scene in bpy.data.scenes:
        for owner in (imported.root, *imported.objects(PLATE)):
            if has_markers(scene, owner):
                remove_markers(scene, owner)
        remove_behind_movers(imported, scene)
        for strip in strips_of(imported, scene):
            scene.sequence_editor.strips.remove(strip)
    for group in marked(imported.root, ELEMENTS):
        for node in list(nodes_with(group)):
            if not any(socket.is_linked for socket in node.outputs):
                node.id_data.nodes.remove(node)
        group.use_fake_user = False
    remove_import(imported.root)
