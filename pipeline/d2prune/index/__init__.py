"""The pool's index for faiss: the lists of the graph, kept for searches.

Terms: *codes* are a row's dimensions in float16. A *body* is the bytes of consecutive lists, each list
as its codes and then its ids (int64, canonical positions), which is how faiss stores lists on disk. A
*view* is a small faiss file with the centroids and the offsets of the lists in a body.

Shapes: N rows, D dimensions, L lists, K partitions.
"""
