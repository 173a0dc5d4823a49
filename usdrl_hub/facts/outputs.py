"""Output formats of pictures, maps and exported models, apart from their modules so that help texts import quickly."""

# An interactive page, an animation, stills.
RENDER_SUFFIXES = (".html", ".gif", ".png")
MAP_SUFFIXES = (".html", ".png")
# Projections of embeddings to two dimensions.
PROJECTIONS = ("pca", "tsne")
EXPORT_FORMATS = ("onnx",)
