"""A part is written while its samples are embedded."""

from d2prune.embed import params as embed_params
from d2prune.inputs.shards import expand_input
from d2prune.parts import files
from d2prune.store import artifacts
from tests.embed.faulty_samples import good, tables
from tests.embed.images import write_tar


def test_part_is_written_in_row_groups_of_fixed_size(setting, monkeypatch):
    """Row groups do not depend on the batches, and a reader can read them one by one."""
    import pyarrow.parquet as pq

    from d2prune.embed import part

    pool, folder, params, make_worker = setting
    plain = part.table_writer.open_table
    monkeypatch.setattr(part.table_writer, "open_table", lambda *given: plain(*given, rows_per_group=4))
    write_tar(pool / "0.tar", [m for i in range(11) for m in good(f"{i}", i)])
    (unit,) = embed_params.plan(expand_input(str(pool)), params)
    receipt = make_worker()(unit)
    for name in (files.SAMPLES, files.EMBEDDINGS):
        file = pq.ParquetFile(artifacts.unit_url(folder, receipt.key, name))
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4, 4, 3]
        assert file.metadata.num_rows == receipt.rows(name) == 11
    samples, _, _ = tables(folder, receipt)
    assert samples["key"].to_pylist() == [str(i) for i in range(11)]
