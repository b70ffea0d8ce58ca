"""Which pictures are the same, and which nearly so: by their bytes, their pixels, a perceptual hash, their vectors.

Only numpy and Pillow are needed, so that many processes can measure and start at once.

Shapes in this file:  N pictures   A, B some of them   K bits of a hash   D width of a vector   S side of a small copy
"""

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Bits = npt.NDArray[np.bool_]  # (N, K)
Vectors = npt.NDArray[np.float32]  # (N, D)
Places = npt.NDArray[np.int64]  # (N,)

SIDE = 32
"""S: the size that a picture has when it is hashed."""
WAVES = 13
"""So many waves across and down; the first of all, the mean light, is left out: K = 168."""
NUM_BITS = WAVES * WAVES - 1
AT_ONCE = 1024
"""Pictures that are compared with all others at a time."""
CLOSE = 12
"""Frames that stand so many apart or fewer are of one moment: half a second at 24 a second, six at two."""


def pixel_digest(picture: Image.Image) -> str:
    """SHA-256 of the size and the pixels: equal for a picture that was only saved anew without loss."""
    rgb = picture.convert("RGB")
    return hashlib.sha256(f"{rgb.width} x {rgb.height}\n".encode() + rgb.tobytes()).hexdigest()


def perceptual_hash(picture: Image.Image) -> bytes:
    """168 bits that change little when a picture is scaled, compressed, brightened or moved by a little.

    Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010: whether each of the slowest
    waves of the cosine transform is stronger than the median of them. With 168 in place of 64 bits, because frames of
    one film in one place are more alike than pictures from anywhere.
    """
    small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=4.0)
    light = np.asarray(small, dtype=np.float64)
    waves = (_COSINES @ light @ _COSINES.T).ravel()[1:]  # (K,)
    # Rounded: what is zero but for the last bits of a sum must be zero on every machine.
    waves = waves.round(3)
    return np.packbits(waves > np.median(waves)).tobytes()


_COSINES = np.cos(np.pi * (2 * np.arange(SIDE)[None] + 1) * np.arange(WAVES)[:, None] / (2 * SIDE))  # (13, S)


def bits_of(hashes: Sequence[bytes]) -> Bits:
    """N hashes -> (N, K)"""
    packed = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(hashes), (NUM_BITS + 7) // 8)
    return np.unpackbits(packed, axis=1, count=NUM_BITS).astype(bool)


def first_of_each(keys: Iterable[Hashable]) -> list[int]:
    """For each, where the first with the same key stands: its own place where there is none before it."""
    first: dict[Hashable, int] = {}
    return [first.setdefault(key, place) for place, key in enumerate(keys)]


@dataclass(frozen=True)
class Looks:
    """What pictures are compared by, and from where on two of them are near-duplicates.

    Args:
        bits: (N, K)
        distance: share of the bits in which near-duplicates differ at most.
        vectors: (N, D) of length 1, or None to go by the hash alone.
        similarity: cosine that near-duplicates have at least.
        moments: (N,) where each stands in time, or None where there is no time.
        distance_in_time: the same as `distance`, of pictures that stand at most `CLOSE` moments apart.
    """

    bits: Bits
    distance: float
    vectors: Vectors | None = None
    similarity: float = 1.0
    moments: Places | None = None
    distance_in_time: float = 0.0

    def nearness(self, some: Places, others: Places) -> npt.NDArray[np.float32]:
        """(A,), (B,) -> (A, B): from 1, the same, down to 0, only just near-duplicates; below it, they are not."""
        here, there = (self.bits[places].astype(np.float32) * 2 - 1 for places in (some, others))
        differ = (1 - here @ there.T / self.bits.shape[1]) / 2
        near: npt.NDArray[np.float32] = 1 - differ / max(self.distance, 1e-6)
        if self.moments is not None:
            close = np.abs(self.moments[some][:, None] - self.moments[others][None]) <= CLOSE
            in_time = (1 - differ / max(self.distance_in_time, 1e-6)).astype(np.float32)
            near = np.where(close, np.maximum(near, in_time), near)
        if self.vectors is not None:
            cosines = self.vectors[some] @ self.vectors[others].T
            near = np.maximum(near, (cosines - self.similarity) / max(1 - self.similarity, 1e-6))
        return near


def leaders(looks: Looks, order: Sequence[int] | Places) -> Places:
    """For each picture, the one that stands for it: (N,), its own place where it stands for itself.

    The pictures are gone through in `order`, the best first. One that is near to a leader follows the nearest, any
    other becomes a leader. So no two leaders are near-duplicates, and every follower is a near-duplicate of its
    leader: a slow pan does not become one chain of which a single frame is left, as joining all pairs would have it.

    Pictures that `order` leaves out get -1. 20,000 take seconds: they are compared in blocks.
    """
    leader = np.full(len(looks.bits), -1, dtype=np.int64)
    found = np.empty(0, dtype=np.int64)
    places = np.asarray(order, dtype=np.int64)
    for start in range(0, len(places), AT_ONCE):
        block = places[start : start + AT_ONCE]
        best, whose = np.full(len(block), -1.0, dtype=np.float32), np.zeros(len(block), dtype=np.int64)
        for begin in range(0, len(found), AT_ONCE):
            some = found[begin : begin + AT_ONCE]
            near = looks.nearness(block, some)  # (A, B)
            nearest = near.argmax(axis=1)
            value = near[np.arange(len(block)), nearest]
            whose = np.where(value > best, some[nearest], whose)
            best = np.maximum(best, value)
        among = looks.nearness(block, block)
        fresh = _lead_among(among, best, whose, block)
        leader[block] = whose
        found = np.concatenate([found, block[fresh]])
    return leader


def _lead_among(among: npt.NDArray[np.float32], best: npt.NDArray[np.float32], whose: Places, block: Places) -> Bits:
    """Who leads within a block: (A,). `best` and `whose` tell the nearest leader of before and are carried on."""
    fresh = np.zeros(len(block), dtype=bool)
    for row, place in enumerate(block):
        if best[row] >= 0:
            continue
        fresh[row] = True
        best[row], whose[row] = 1.0, place
        closer = among[row] > best
        closer[: row + 1] = False
        best[closer], whose[closer] = among[row][closer], place
    return fresh


def mean_over_near(looks: Looks, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of each picture, the mean of a value over it and its near-duplicates: (N,) -> (N,)"""
    places, means = np.arange(len(values)), np.empty(len(values))
    for start in range(0, len(places), AT_ONCE):
        block = places[start : start + AT_ONCE]
        total, count = np.zeros(len(block)), np.zeros(len(block))
        for begin in range(0, len(places), AT_ONCE):
            others = places[begin : begin + AT_ONCE]
            near = (looks.nearness(block, others) >= 0) | (block[:, None] == others[None])
            total += near @ values[others]
            count += near.sum(axis=1)
        means[block] = total / count
    return means


def near_pairs(looks: Looks) -> npt.NDArray[np.int64]:
    """Every pair of near-duplicates, the lower number first: (pairs, 2)"""
    places = np.arange(len(looks.bits))
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(places), AT_ONCE):
        block = places[start : start + AT_ONCE]
        for begin in range(start, len(places), AT_ONCE):
            others = places[begin : begin + AT_ONCE]
            rows, columns = np.nonzero(looks.nearness(block, others) >= 0)
            pairs = np.stack([block[rows], others[columns]], axis=1)
            found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found)
