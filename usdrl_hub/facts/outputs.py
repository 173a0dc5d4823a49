"""What pictures, maps and exported models are written as, so that a help text names it without importing them."""

# A page that moves, a film, a picture.
RENDER_SUFFIXES = (".html", ".gif", ".png")
MAP_SUFFIXES = (".html", ".png")
# How embeddings are brought onto a plane.
PROJECTIONS = ("pca", "tsne")
EXPORT_FORMATS = ("onnx",)
