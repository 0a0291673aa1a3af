"""The graph of a pool that no machine holds: steps of units that send rows to each other through files.

    distinct    per embed part         local duplicates; hashes of its distinct rows -> buckets
    copies      per bucket of hashes   which rows repeat an earlier one of another part -> parts
    quantiser   once                   centroids; the two samples that recall is measured on
    truth       per embed part         its rows among the true neighbours of the samples
    layout      once                   nprobe; lists grouped into partitions
    assign      per embed part         its rows -> the partitions they visit
    search      per partition          its lists meet all who visit them; candidates -> parts
    merge       per embed part         nearest neighbours of its rows; edges -> the parts of both ends
    neighbors   per embed part         rows of the undirected graph: the artifact

A vector that occurs many times is a member of its list once (its first row) and a query once per
part. Invariant: the result is that of `knn.knn_graph_report` on the whole pool, bit for bit,
however it is cut into parts, buckets, partitions and batches, and in whatever order units run.
"""
