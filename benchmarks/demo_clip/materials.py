"""Procedural materials of the demo set: rough, rich in corners at every scale, never the same twice, no image files."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

Colour = tuple[float, float, float]


class Material:
    """A material's node tree as expressions: every method adds a node and returns the socket that it computes."""

    def __init__(self, name: str) -> None:
        self.material = bpy.data.materials.new(name)
        if not self.material.node_tree:
            self.material.use_nodes = True
        self.tree = self.material.node_tree
        self.tree.nodes.clear()
        self.flat = False  # whether textures lie on a plane: `wall` sees to it

    def node(self, kind: str, inputs: dict[str, Any] | None = None, **properties: Any) -> Any:
        """A node whose `inputs` (by name or identifier) are sockets to link or values to set."""
        node = self.tree.nodes.new(f"ShaderNode{kind}")
        for key, value in properties.items():
            setattr(node, key, value)
        for key, value in (inputs or {}).items():
            socket = next(s for s in node.inputs if key in (s.identifier, s.name) and s.enabled)
            if isinstance(value, bpy.types.NodeSocket):
                self.tree.links.new(value, socket)
            elif isinstance(value, tuple) and socket.type == "RGBA":
                socket.default_value = (*value, 1.0)
            else:
                socket.default_value = value
        return node

    def math(self, operation: str, a: Any, b: Any = 0.0, clamp: bool = False) -> Any:
        node = self.node("Math", operation=operation, use_clamp=clamp)
        for socket, value in zip(node.inputs, (a, b)):
            if isinstance(value, bpy.types.NodeSocket):
                self.tree.links.new(value, socket)
            else:
                socket.default_value = value
        return node.outputs[0]

    def mix(self, factor: Any, a: Any, b: Any, blend: str = "MIX") -> Any:
        inputs = {"Factor_Float": factor, "A_Color": a, "B_Color": b}
        return self.node("Mix", inputs, data_type="RGBA", blend_type=blend).outputs["Result"]

    def ramp(self, factor: Any, *stops: tuple[float, Colour], steps: bool = False) -> Any:
        node = self.node("ValToRGB", {"Fac": factor})
        elements = node.color_ramp.elements
        node.color_ramp.interpolation = "CONSTANT" if steps else "LINEAR"
        while len(elements) < len(stops):
            elements.new(1.0)
        for element, (position, colour) in zip(elements, stops):
            element.position, element.color = position, (*colour, 1.0)
        return node.outputs["Color"]

    def step(self, value: Any, low: float, high: float) -> Any:
        """0 below `low`, 1 above `high`, linear between."""
        return self.node("MapRange", {"Value": value, "From Min": low, "From Max": high}).outputs["Result"]

    def noise(self, where: Any, scale: float, rough: float = 0.6) -> Any:
        """Fractal noise of `scale` cells a metre about 0.5, from a picture: far faster than a noise node."""
        cells, pixels = (8, 1024) if scale < 4 else (64, 1024)
        inputs = {"Vector": self.math3("SCALE", where, scale / cells)}
        node = self.node("TexImage", inputs, projection="FLAT" if self.flat else "BOX", interpolation="Linear")
        node.image = _noise_image(cells, pixels, rough)
        return self.node("SeparateXYZ", {"Vector": node.outputs["Color"]}).outputs[0]

    def math3(self, operation: str, vector: Any, other: Any) -> Any:
        inputs = {"Vector": vector, "Scale" if operation == "SCALE" else "Vector_001": other}
        return self.node("VectorMath", inputs, operation=operation).outputs[0]

    def own(self) -> Any:
        """Coordinates in metres that stick to the object, shifted for each object so that no two look alike."""
        coordinates = self.node("TexCoord").outputs["Object"]
        shift = self.math("MULTIPLY", self.node("ObjectInfo").outputs["Random"], 97.0)
        return self.math3("ADD", coordinates, shift)

    def wall(self) -> Any:
        """World coordinates laid flat on whatever axis-aligned face is shaded: along, up."""
        self.flat = True
        xyz = self.node("SeparateXYZ", {"Vector": self.node("NewGeometry").outputs["Position"]}).outputs
        n = self.node("SeparateXYZ", {"Vector": self.node("NewGeometry").outputs["Normal"]}).outputs
        side = self.math("GREATER_THAN", self.math("ABSOLUTE", n[0]), 0.7)
        flat = self.math("GREATER_THAN", self.math("ABSOLUTE", n[2]), 0.7)
        along = self.node("Mix", {"Factor_Float": side, "A_Float": xyz[0], "B_Float": xyz[1]}).outputs["Result"]
        up = self.node("Mix", {"Factor_Float": flat, "A_Float": xyz[2], "B_Float": xyz[1]}).outputs["Result"]
        return self.node("CombineXYZ", {"X": along, "Y": up}).outputs[0]

    def finish(self, colour: Any, height: Any = None, bump_m: float = 0.01, roughness: float = 0.85) -> Any:
        """Close the tree with a rough surface; `height` in [0, 1] becomes bumps of `bump_m` metres."""
        inputs = {"Base Color": colour, "Roughness": roughness, "Specular IOR Level": 0.25}
        if height is not None:
            inputs["Normal"] = self.node("Bump", {"Height": height, "Distance": bump_m, "Strength": 1.0}).outputs[0]
        shader = self.node("BsdfPrincipled", inputs).outputs[0]
        self.tree.links.new(shader, self.node("OutputMaterial").inputs["Surface"])
        return self.material


def _noise_image(cells: int, pixels: int, rough: float) -> bpy.types.Image:
    """A square of periodic fractal noise with `cells` cells on a side, made once: mean 0.5, deviation 0.12."""
    rough = min((0.4, 0.62, 0.76), key=lambda known: abs(known - rough))  # few pictures stay in the cache
    name = f"noise {cells} {rough}"
    if found := bpy.data.images.get(name):
        return found
    rng = np.random.default_rng(cells + int(100 * rough))
    fy, fx = np.meshgrid(np.fft.fftfreq(pixels, 1 / pixels), np.fft.rfftfreq(pixels, 1 / pixels), indexing="ij")
    frequency = np.hypot(fx, fy)
    falloff = 1 - np.log2(rough)  # amplitude of an octave falls by `rough`, and its area grows by four
    spectrum = np.where(frequency >= 0.5 * cells, np.maximum(frequency, 1) ** -falloff, 0)
    values = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(pixels, pixels))) * spectrum, s=(pixels, pixels))
    values = 0.5 + 0.12 * (values - values.mean()) / values.std()
    image = bpy.data.images.new(name, pixels, pixels, is_data=True)
    rgba = np.repeat(values[..., None].clip(0, 1), 4, axis=2).astype(np.float32)
    rgba[..., 3] = 1
    image.pixels.foreach_set(rgba.ravel())
    image.update()
    return image


def _bricks(m: Material, where: Any, colours: tuple[Colour, ...]) -> tuple[Any, Any]:
    """Colour and height of a brick wall in which every brick has its own colour, with dirt and pits."""
    bent = m.noise(where, 1.3)
    where = m.math3("ADD", where, m.math3("SCALE", bent, 0.05))
    brick = m.node(
        "TexBrick",
        {
            "Vector": where,
            "Color1": (0.0, 0.0, 0.0),
            "Color2": (1.0, 1.0, 1.0),
            "Mortar": (0.5, 0.5, 0.5),
            "Scale": 2.0,
            "Mortar Size": 0.016,
            "Mortar Smooth": 0.3,
            "Row Height": 0.19,
        },
    ).outputs
    stops = [(i / (len(colours) - 1), c) for i, c in enumerate(colours)]
    colour = m.ramp(brick["Color"], *stops)
    speckle = m.noise(where, 45, 0.75)
    colour = m.mix(m.step(speckle, 0.35, 0.68), colour, m.mix(0.75, colour, (0.06, 0.03, 0.02)))
    mortar = m.ramp(m.noise(where, 30), (0.3, (0.3, 0.27, 0.23)), (0.7, (0.5, 0.46, 0.4)))
    colour = m.mix(brick["Fac"], colour, mortar)
    height = m.math("SUBTRACT", m.math("MULTIPLY", speckle, 0.35), m.math("MULTIPLY", brick["Fac"], 0.8))
    return colour, height


def bricks(name: str, colours: tuple[Colour, ...], plaster: Colour | None = None, bare: float = 0.5) -> Any:
    """A brick wall, or one whose old `plaster` has fallen off where a noise exceeds `bare`."""
    m = Material(name)
    where = m.wall()
    colour, height = _bricks(m, where, colours)
    stains = m.noise(where, 0.7, 0.65)
    if plaster:
        flaked = m.step(m.noise(where, 0.85, 0.62), bare - 0.006, bare + 0.006)
        pale = tuple(min(1.0, 1.35 * c) for c in plaster)
        coat = m.ramp(m.noise(where, 2.6, 0.72), (0.32, tuple(0.55 * c for c in plaster)), (0.5, plaster), (0.66, pale))
        grain = m.noise(where, 38, 0.8)
        coat = m.mix(m.step(grain, 0.48, 0.72), coat, m.mix(0.6, coat, (0.12, 0.1, 0.08)))
        colour = m.mix(flaked, coat, colour)
        height = m.mix(flaked, m.math("ADD", m.math("MULTIPLY", grain, 0.2), 0.75), height)
    colour = m.mix(m.step(stains, 0.42, 0.68), colour, m.mix(0.62, colour, (0.05, 0.045, 0.04)))
    return m.finish(colour, height, 0.02)


def cobbles(name: str) -> Any:
    """Paving stones of many greys and browns with dark joints."""
    m = Material(name)
    where = m.wall()
    cell = {"Vector": where, "Scale": 5.2, "Randomness": 0.72}
    tone = m.node("SeparateXYZ", {"Vector": m.node("TexVoronoi", cell).outputs["Color"]}).outputs[0]
    edge = m.node("TexVoronoi", cell, feature="DISTANCE_TO_EDGE").outputs["Distance"]
    stone = m.ramp(
        tone,
        (0.0, (0.10, 0.09, 0.085)),
        (0.3, (0.24, 0.2, 0.16)),
        (0.55, (0.33, 0.31, 0.3)),
        (0.8, (0.47, 0.38, 0.29)),
        (1.0, (0.58, 0.54, 0.5)),
    )
    grain = m.noise(where, 42, 0.78)
    stone = m.mix(m.step(grain, 0.42, 0.7), stone, m.mix(0.65, stone, (0.05, 0.045, 0.04)))
    joint = m.step(edge, 0.0, 0.09)
    colour = m.mix(joint, m.ramp(m.noise(where, 20), (0.4, (0.05, 0.045, 0.035)), (0.62, (0.1, 0.13, 0.04))), stone)
    dirt = m.step(m.noise(where, 0.9, 0.65), 0.45, 0.66)
    colour = m.mix(dirt, colour, m.mix(0.45, colour, (0.16, 0.12, 0.08)))
    height = m.math("ADD", m.math("MULTIPLY", m.step(edge, 0.0, 0.22), 1.0), m.math("MULTIPLY", grain, 0.25))
    return m.finish(colour, height, 0.03)


def wood(name: str, dark: Colour, light: Colour) -> Any:
    """Planks with the grain along their x axis, knots and weather."""
    m = Material(name)
    where = m.own()
    long = m.math3("MULTIPLY", where, (0.12, 1.0, 1.0))
    rings = m.noise(long, 26, 0.65)
    each = m.node("ObjectInfo").outputs["Random"]
    colour = m.ramp(rings, (0.32, dark), (0.5, tuple((a + b) / 2 for a, b in zip(dark, light))), (0.66, light))
    colour = m.mix(m.math("MULTIPLY", each, 0.5), colour, tuple(0.35 * c for c in light))
    spots = m.step(m.noise(where, 17, 0.7), 0.57, 0.64)
    colour = m.mix(spots, colour, m.mix(0.7, colour, (0.03, 0.025, 0.02)))
    return m.finish(colour, rings, 0.006)


def painted(name: str, paint: Colour, under: Colour, chipped: float = 0.62, second: Colour | None = None) -> Any:
    """Paint chipped down to what is `under` it, with grime; a `second` paint in blotched fields."""
    m = Material(name)
    where = m.own()
    coat: Any = m.ramp(m.noise(where, 5, 0.7), (0.35, tuple(0.6 * c for c in paint)), (0.6, paint))
    if second:
        coat = m.mix(m.step(m.noise(where, 3.1, 0.4), 0.505, 0.515), coat, second)
    chips = m.step(m.noise(where, 11, 0.68), chipped - 0.01, chipped + 0.01)
    colour = m.mix(chips, coat, under)
    grime = m.step(m.noise(where, 33, 0.75), 0.55, 0.72)
    colour = m.mix(grime, colour, m.mix(0.6, colour, (0.04, 0.035, 0.03)))
    return m.finish(colour, m.math("SUBTRACT", 1.0, chips), 0.004, 0.7)


def patches(name: str, colours: tuple[Colour, ...], scale: float, seam: float = 0.02, dirt: float = 0.5) -> Any:
    """Cells of flat bright colours with dark seams: leather patches of a ball, or a printed poster."""
    m = Material(name)
    where = m.own()
    cell = {"Vector": where, "Scale": scale}
    tone = m.node("SeparateXYZ", {"Vector": m.node("TexVoronoi", cell).outputs["Color"]}).outputs[0]
    edge = m.node("TexVoronoi", cell, feature="DISTANCE_TO_EDGE").outputs["Distance"]
    colour = m.ramp(tone, *[(i / len(colours), c) for i, c in enumerate(colours)], steps=True)
    colour = m.mix(m.step(edge, seam, seam * 1.6), (0.02, 0.018, 0.016), colour)
    spots = m.step(m.noise(where, 24, 0.75), 0.52, 0.66)
    return m.finish(m.mix(spots, colour, m.mix(dirt, colour, (0.07, 0.05, 0.04))), m.step(edge, 0, 0.08), 0.008)


def leaves(name: str, tones: tuple[Colour, ...]) -> Any:
    """Leaves, each of its own tone."""
    m = Material(name)
    each = m.node("NewGeometry").outputs["Random Per Island"]
    colour = m.ramp(each, *[(i / (len(tones) - 1), c) for i, c in enumerate(tones)])
    return m.finish(m.mix(m.step(m.noise(m.own(), 60), 0.5, 0.65), colour, m.mix(0.5, colour, (0.02, 0.04, 0.01))))


def fruit(name: str, tones: tuple[Colour, ...]) -> Any:
    """Round fruit, each of its own tone, freckled."""
    m = Material(name)
    each = m.node("ObjectInfo").outputs["Random"]
    colour = m.ramp(each, *[(i / (len(tones) - 1), c) for i, c in enumerate(tones)])
    return m.finish(
        m.mix(m.step(m.noise(m.own(), 40), 0.55, 0.68), colour, m.mix(0.6, colour, (0.1, 0.06, 0.02))), None, 0, 0.6
    )


def glow(name: str, colour: Colour, strength: float) -> Any:
    """A lamp, or the eyes of a robot."""
    m = Material(name)
    shader = m.node("Emission", {"Color": colour, "Strength": strength}).outputs[0]
    m.tree.links.new(shader, m.node("OutputMaterial").inputs["Surface"])
    return m.material
