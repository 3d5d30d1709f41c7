"""Checkpoints of cells that are damaged or cannot be written."""

import numpy as np
import pytest

from lazynet.execution import _checkpoint as checkpoint


def test_a_checkpoint_with_a_flipped_bit_is_not_used(tmp_path):
    """Orbax itself reads the changed bytes without an error, so lazynet must notice the change."""
    import orbax.checkpoint

    kept = checkpoint.CellCheckpoint(tmp_path / "000001")
    kept.save(5, {"a": np.arange(6.0)})
    with orbax.checkpoint.PyTreeCheckpointer() as checkpointer:
        stored = checkpointer.restore(tmp_path / "000001" / "5")
        content = np.array(stored["content"])
        content[len(content) // 2] ^= 1
        checkpointer.save(tmp_path / "000001" / "5", stored | {"content": content}, force=True)
    with pytest.warns(UserWarning, match="is damaged, so its cell will be recomputed from the beginning"):
        assert kept.load() is None
    assert not (tmp_path / "000001").exists()


def test_a_checkpoint_that_is_damaged_or_cannot_be_written(monkeypatch, tmp_path):
    kept = checkpoint.CellCheckpoint(tmp_path / "000001")
    arrays = {"a": np.arange(6.0).reshape(2, 3), "none": np.zeros((2, 0))}
    for step in (3, 5):
        kept.save(step, arrays)
    assert [path.name for path in (tmp_path / "000001").iterdir()] == ["5"]
    assert all(np.array_equal(kept.load()[name], values) for name, values in arrays.items())
    for file in (tmp_path / "000001").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="is damaged, so its cell will be recomputed from the beginning"):
        assert kept.load() is None
    assert kept.load() is None

    def full():
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "_checkpointer", full)
    with pytest.warns(UserWarning, match="could not be written: No space left"):
        kept.save(7, arrays)
