"""Nearest vectors of many: exactly, or by an inverted file with product quantisation (FAISS) and re-ranking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import USDRLError
from ..finite import check_finite
from ..metrics.retrieval import top_k, unit

# Vectors up to which search is exact. Beyond, an inverted file finds candidates, which are compared exactly.
EXACT_LIMIT = 100_000
# Bytes of a vector's code: as many parts of the vector, each with one of 256 values.
CODE_BYTES = 64
# Lists that a query reads, and candidates that are compared exactly for each of the k wanted, and at least.
_LISTS_READ, _CANDIDATES, _FEWEST_CANDIDATES = 64, 20, 1000
# Training vectors of a list, and iterations of k-means.
_TRAINED_ON, _ITERATIONS = 40, 10
# The structure is trained again when it holds this many times the vectors that it was trained for.
GROWTH = 4
# Numbers of float32 vectors that are converted at once.
_NUMBERS_AT_ONCE = 1 << 24

# Gives float32 vectors ``(n, D)`` by their numbers ``(n,)``.
Vectors = Callable[[np.ndarray], np.ndarray]


def faiss_or_refuse() -> Any:
    """The module faiss.

    Raises:
        USDRLError: If it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise USDRLError(
            f"more than {EXACT_LIMIT} windows are searched with FAISS: pip install 'usdrl-hub[search]'"
        ) from None
    return faiss


@dataclass(frozen=True, eq=False)
class InvertedFile:
    """Codes of vectors in lists of similar ones (Jegou 2011): arrays of our own, from which FAISS's index is built.

    FAISS's own files are neither written nor read: a damaged or hostile one could crash the process.

    Attributes:
        centroids: Middle of each list ``(L, D)`` float32, D padded with zeros to a multiple of the code's bytes.
        codebooks: Values of each part of a code ``(M, 256, D / M)`` float32.
        codes: Codes ``(n, M)`` uint8, list after list.
        numbers: Number of the vector of each code ``(n,)`` int32: all numbers below n, once each.
        ends: Where each list ends ``(L,)`` int64.
        trained_for: Vectors that the structure was trained for.
    """

    centroids: np.ndarray
    codebooks: np.ndarray
    codes: np.ndarray
    numbers: np.ndarray
    ends: np.ndarray
    trained_for: int

    @classmethod
    def train(cls, vectors: Vectors, count: int, size: int, seed: int = 0) -> InvertedFile:
        """Train lists and codebooks on a sample, and add all vectors.

        Args:
            vectors: Gives unit vectors by their numbers.
            count: Number of vectors.
            size: Numbers of a vector, D.
            seed: Random seed of the sample and of k-means.

        Raises:
            USDRLError: If FAISS is not installed.
        """
        faiss = faiss_or_refuse()
        lists = max(2 ** round(np.log2(np.sqrt(count))), 1)
        parts = min(CODE_BYTES, size)
        padded = -(-size // parts) * parts
        index = faiss.IndexIVFPQ(faiss.IndexFlatL2(padded), padded, lists, parts, 8)
        index.cp.niter, index.cp.seed = _ITERATIONS, seed
        # No warnings on stderr of few training vectors, which are few because all are.
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
        chosen = min(count, max(_TRAINED_ON * lists, 256 * _TRAINED_ON))
        sample = np.sort(np.random.default_rng(seed).choice(count, chosen, replace=False))
        # A codebook has 256 values, so k-means wants as many vectors.
        index.train(_padded(np.resize(vectors(sample), (max(chosen, 256), size)), padded))
        centroids = index.quantizer.reconstruct_n(0, lists)
        codebooks = faiss.vector_to_array(index.pq.centroids).reshape(parts, 256, padded // parts)
        empty = np.zeros((0, parts), np.uint8), np.zeros(0, np.int32), np.zeros(lists, np.int64)
        return cls(centroids, codebooks, *empty, trained_for=count).extended(vectors, count)

    def __len__(self) -> int:
        """Number of vectors."""
        return len(self.numbers)

    def extended(self, vectors: Vectors, count: int) -> InvertedFile:
        """The structure with the vectors from its own number of them up to `count`."""
        faiss = faiss_or_refuse()
        index, padded = self.built(), self.centroids.shape[1]
        step = max(_NUMBERS_AT_ONCE // padded, 1)
        for start in range(len(self), count, step):
            numbers = np.arange(start, min(start + step, count))
            index.add_with_ids(_padded(vectors(numbers), padded), numbers)
        lists = range(len(self.ends))
        sizes = [index.invlists.list_size(number) for number in lists]
        codes = np.empty((count, self.codebooks.shape[0]), np.uint8)
        numbers = np.empty(count, np.int32)
        ends = np.cumsum(sizes, dtype=np.int64)
        for number, (end, length) in enumerate(zip(ends.tolist(), sizes, strict=True)):
            if length:
                found = faiss.rev_swig_ptr(index.invlists.get_codes(number), length * codes.shape[1])
                codes[end - length : end] = found.reshape(length, -1)
                numbers[end - length : end] = faiss.rev_swig_ptr(index.invlists.get_ids(number), length)
        return InvertedFile(self.centroids, self.codebooks, codes, numbers, ends, self.trained_for)

    def without(self, kept: np.ndarray) -> InvertedFile:
        """The structure without some vectors; the others are numbered anew, in their order.

        Args:
            kept: Whether each vector stays ``(n,)``.
        """
        number = np.cumsum(kept) - 1
        stays = kept[self.numbers]
        before = np.concatenate([[0], np.cumsum(stays)])
        ends = before[self.ends]
        numbers = number[self.numbers[stays]].astype(np.int32)
        return InvertedFile(self.centroids, self.codebooks, self.codes[stays], numbers, ends, self.trained_for)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, to be stored."""
        names = ("centroids", "codebooks", "codes", "numbers", "ends")
        return {name: getattr(self, name) for name in names} | {"trained_for": np.array([self.trained_for], np.int64)}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], size: int, count: int) -> InvertedFile:
        """Check arrays from a file and take them.

        Args:
            arrays: See `arrays`.
            size: Numbers of a vector.
            count: Vectors that there are; the structure may hold fewer.

        Raises:
            ValueError: If they do not fit each other, the size or the count; the message names the array.
        """
        kinds = {"centroids": "float32", "codebooks": "float32", "codes": "uint8", "numbers": "int32", "ends": "int64"}
        for name, kind in (kinds | {"trained_for": "int64"}).items():
            if name not in arrays or arrays[name].dtype != kind:
                raise ValueError(f"array '{name}' is missing or not of type {kind}")
        centroids, codebooks, codes, numbers, ends = (arrays[name] for name in kinds)
        parts = min(CODE_BYTES, size)
        padded = -(-size // parts) * parts
        found = len(numbers)
        shapes = {
            "centroids": (len(centroids), padded),
            "codebooks": (parts, 256, padded // parts),
            "codes": (found, parts),
            "numbers": (found,),
            "ends": (len(centroids),),
            "trained_for": (1,),
        }
        for name, shape in shapes.items():
            if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
                raise ValueError(f"array '{name}' has the wrong shape, or holds NaN or infinity")
        if not len(centroids) or found > count or ends[-1] != found or (np.diff(ends, prepend=0) < 0).any():
            raise ValueError("array 'ends' does not rise to the number of codes")
        if found and (numbers.min() != 0 or numbers.max() != found - 1 or len(np.unique(numbers)) != found):
            raise ValueError("array 'numbers' does not hold each window once")
        return cls(centroids, codebooks, codes, numbers, ends, int(arrays["trained_for"][0]))

    def built(self) -> Any:
        """FAISS's index of the arrays."""
        faiss = faiss_or_refuse()
        lists, padded = self.centroids.shape
        quantizer = faiss.IndexFlatL2(padded)
        quantizer.add(self.centroids)
        parts = self.codebooks.shape[0]
        index = faiss.IndexIVFPQ(quantizer, padded, lists, parts, 8)
        # The tables would take more memory than the codes.
        index.use_precomputed_table = -1
        faiss.copy_array_to_vector(np.ascontiguousarray(self.codebooks).ravel(), index.pq.centroids)
        index.is_trained = True
        start = 0
        for number, end in enumerate(self.ends.tolist()):
            if end > start:
                numbers = self.numbers[start:end].astype(np.int64)
                codes = np.ascontiguousarray(self.codes[start:end])
                index.invlists.add_entries(number, end - start, faiss.swig_ptr(numbers), faiss.swig_ptr(codes))
            start = end
        index.ntotal = len(self)
        return index


@dataclass(eq=False)
class NearestVectors:
    """The nearest of many unit vectors by cosine similarity.

    Attributes:
        vectors: Gives the vectors by their numbers.
        count: Number of vectors.
        size: Numbers of a vector.
        inverted: Codes of the first vectors, or None; the others are compared exactly.
    """

    vectors: Vectors
    count: int
    size: int
    inverted: InvertedFile | None = None

    def __post_init__(self) -> None:
        """Nothing is built before the first search."""
        self._index: Any = None
        self._exact: torch.Tensor | None = None

    @classmethod
    def of(cls, vectors: np.ndarray, exact_limit: int = EXACT_LIMIT) -> NearestVectors:
        """The vectors ``(n, D)`` of an array.

        Args:
            vectors: They need not have length 1.
            exact_limit: Number of vectors beyond which search is approximate.

        Raises:
            USDRLError: If there are more and FAISS is not installed.
            NonFiniteError: If a vector is NaN or infinite.
        """
        check_finite(vectors, "the vectors to search")
        scaled = unit_vectors(vectors)
        count, size = scaled.shape
        inverted = InvertedFile.train(scaled.__getitem__, count, size) if count > exact_limit else None
        return cls(scaled.__getitem__, count, size, inverted)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest vectors of each query.

        Args:
            queries: ``(Q, D)``, of any length.
            k: Number of vectors; all are found where there are fewer.

        Returns:
            Cosine similarities ``(Q, k)`` float32, highest first, and the vectors' numbers ``(Q, k)`` int64, -1 where
            the lists that were read hold fewer.

        Raises:
            USDRLError: If FAISS is needed and not installed.
        """
        queries = unit_vectors(queries)
        k = min(k, self.count)
        first = 0 if self.inverted is None else len(self.inverted)
        scores, numbers = self._search_exactly(queries, first, k)
        if first:
            found = self._search_inverted(queries, k)
            scores = np.concatenate([found[0], scores], axis=1)
            numbers = np.concatenate([found[1], numbers], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores, numbers = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
        return scores, numbers

    def _search_exactly(self, queries: np.ndarray, first: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Compare all vectors from the `first` on."""
        if first == self.count:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        if self._exact is None:
            self._exact = unit(torch.from_numpy(self.vectors(np.arange(first, self.count))))
        found = top_k(torch.from_numpy(queries), self._exact, min(k, len(self._exact)), is_unit=True)
        return found[0].numpy(), found[1].numpy() + first

    def _search_inverted(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find candidates by their codes, and compare their vectors."""
        assert self.inverted is not None
        if self._index is None:
            self._index = self.inverted.built()
        index = self._index
        index.nprobe = min(_LISTS_READ, len(self.inverted.ends))
        wanted = min(max(_CANDIDATES * k, _FEWEST_CANDIDATES), len(self.inverted))
        k = min(k, wanted)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        numbers = np.full((len(queries), k), -1, np.int64)
        for row, query in enumerate(queries):
            candidates = index.search(_padded(query[None], index.d), wanted)[1][0]
            # In order, so that the disk is read forwards.
            candidates = np.sort(candidates[candidates >= 0])
            similar = self.vectors(candidates) @ query
            best = np.argsort(-similar, kind="stable")[:k]
            scores[row, : len(best)], numbers[row, : len(best)] = similar[best], candidates[best]
        return scores, numbers


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Vectors ``(n, D)`` scaled to length 1, float32; zeros stay."""
    return unit(torch.tensor(vectors, dtype=torch.float32)).numpy()


def _padded(vectors: np.ndarray, size: int) -> np.ndarray:
    """Vectors with zeros at the end, as FAISS takes them."""
    found = np.ascontiguousarray(vectors, dtype=np.float32)
    return found if found.shape[1] == size else np.pad(found, ((0, 0), (0, size - found.shape[1])))
