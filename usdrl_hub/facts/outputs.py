"""Output formats of pictures, maps and exported models, apart from their modules so that help texts import quickly."""

# An interactive page, an animation, stills.
RENDER_SUFFIXES = (".html", ".gif", ".png")
MAP_SUFFIXES = (".html", ".png")
# Projections of embeddings to two dimensions.
PROJECTIONS = ("pca", "tsne")
EXPORT_FORMATS = ("onnx",)

# onnxruntime-web, which runs an exported page: the version, its address on the CDN that its documentation names, and
# the files needed with their hashes (of the package on the npm registry).
RUNTIME = "onnxruntime-web"
RUNTIME_VERSION = "1.30.0"
RUNTIME_ADDRESS = f"https://cdn.jsdelivr.net/npm/{RUNTIME}@{RUNTIME_VERSION}/dist/"
RUNTIME_FILES = {
    "ort.wasm.min.js": "sha384-Bw6URI+Gvoadw0do7/QrSHUC9D1vCYYK5OSqChFyhyV5mzPL4oe2rOAFljAnS8Sq",
    "ort-wasm-simd-threaded.mjs": "sha384-XcXA/MtAf0WpB8e023xQH9CM7RIjiugakT7x99DIwpFf7k56BIFFcAPerIF7FDad",
    "ort-wasm-simd-threaded.wasm": "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
}
