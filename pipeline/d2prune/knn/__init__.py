"""kNN graph kernels: arrays in, an undirected graph out. They use no files and no workers.

Terms used throughout:

canonical position  a sample's number in the pool (input order); breaks all ties
canonical distance  the squared distance that `distances.sq_distance` computes, in float32
list                the rows whose nearest centroid is the same; the list is their *home list*
member              a row of a list, as opposed to the query that is compared with it
visit, probe        a query visits the nprobe lists with the nearest centroids; its probes are their
                    numbers, home list first
meet                two rows meet, and can become neighbours, if one visits the other's home list
partition           some of the lists, searched together
projection          a short vector in place of a row, no farther from other projections than the
                    rows are from each other

Shapes: N rows, K nearest, D dimensions, Q queries, M members, L lists, P probes, S sampled rows,
R rows or groups, E pairs or edges, T rows of a tile.
"""
