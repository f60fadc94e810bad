"""Thinning out a triangle mesh; used by build_open_body.py."""

from __future__ import annotations

import heapq

import numpy as np


def thin_out(template: np.ndarray, faces: np.ndarray, labels: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices to keep (keep,) and faces over them: half-edge collapses in the order of their quadric error.

    Garland and Heckbert, Surface Simplification Using Quadric Error Metrics, SIGGRAPH 1997; a vertex is moved onto a
    neighbour, never elsewhere, so that the thin mesh's vertices are vertices of the full one with all they carry. A
    collapse that would flip a face or break the manifold is left out. Edges across body parts cost more.
    """
    around: list[set[int]] = [set() for _ in template]  # faces at each vertex
    triangles = [tuple(int(i) for i in f) for f in faces]
    quadric = np.zeros((len(template), 4, 4))
    corners = template[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1) / 2
    normal = normal / np.maximum(2 * area, 1e-12)[:, None]
    plane = np.concatenate((normal, -(normal * corners[:, 0]).sum(1, keepdims=True)), 1)
    per_face = area[:, None, None] * plane[:, :, None] * plane[:, None, :]
    for f, triangle in enumerate(triangles):
        for v in triangle:
            around[v].add(f)
            quadric[v] += per_face[f]

    def neighbours(v: int) -> set[int]:
        return {w for f in around[v] for w in triangles[f]} - {v}

    def cost(v: int, w: int) -> float:
        """Of moving v onto w; the small second term keeps edges from growing long on flat ground."""
        place = np.append(template[w], 1)
        error = place @ (quadric[v] + quadric[w]) @ place
        spread = ((template[v] - template[w]) ** 2).sum()
        return float((error + 1e-3 * spread**2) * (1 if labels[v] == labels[w] else 4))

    def allowed(v: int, w: int) -> bool:
        if len(neighbours(v) & neighbours(w)) != 2:
            return False
        for f in around[v]:
            triangle = triangles[f]
            if w in triangle:
                continue
            before = template[list(triangle)]
            after = template[[w if i == v else i for i in triangle]]
            a, b = (np.cross(p[1] - p[0], p[2] - p[0]) for p in (before, after))
            if a @ b < 0.3 * np.linalg.norm(a) * np.linalg.norm(b) or np.linalg.norm(b) < 1e-9:
                return False
        return True

    version = np.zeros(len(template), int)
    queue = [(cost(v, w), v, w, 0, 0) for v in range(len(template)) for w in neighbours(v)]
    heapq.heapify(queue)
    alive = len(template)
    while alive > keep and queue:
        _, v, w, version_v, version_w = heapq.heappop(queue)
        if version[v] != version_v or version[w] != version_w or not around[v] or not allowed(v, w):
            continue
        for f in list(around[v]):
            if w in triangles[f]:
                for i in triangles[f]:
                    around[i].discard(f)
            else:
                triangles[f] = tuple(w if i == v else i for i in triangles[f])
                around[w].add(f)
        around[v] = set()
        quadric[w] += quadric[v]
        version[v] += 1
        version[w] += 1
        alive -= 1
        for u in neighbours(w):
            heapq.heappush(queue, (cost(u, w), u, w, version[u], version[w]))
            heapq.heappush(queue, (cost(w, u), w, u, version[w], version[u]))
    kept = np.array([v for v in range(len(template)) if around[v]])
    left = sorted({f for v in kept for f in around[v]})
    renumber = np.full(len(template), -1)
    renumber[kept] = np.arange(len(kept))
    return kept, renumber[np.array([triangles[f] for f in left])].astype(np.int32)
