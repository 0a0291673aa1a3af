import numpy as np

from d2prune.report.flagged import flag_share


def test_flagged_samples_are_counted_among_the_dropped():
    share = flag_share(["a", "b", "c", "d"], np.array([True, False, False, True]), {"b", "d", "elsewhere"})
    assert (share.flagged, share.flagged_dropped, share.samples, share.dropped) == (2, 1, 4, 2)
    assert share.share_flagged == 0.5
    assert share.share_all == 0.5
    assert np.isnan(flag_share([], np.zeros(0, bool), {"a"}).share_flagged)
