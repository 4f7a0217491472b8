"""Heavy imports."""

import gc
import sys

import pytest

from critique_rl._lazy import heavy_imports


def test_nothing_is_kept_for_good_where_torch_is_there_already():
    import torch  # noqa: F401

    frozen = gc.get_freeze_count()
    with heavy_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


@pytest.mark.parametrize("fails", [False, True])
def test_no_garbage_is_looked_for_meanwhile(monkeypatch, fails):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))
    frozen: list[bool] = []
    try:
        with heavy_imports():
            assert not gc.isenabled()
            if fails:
                raise ImportError
    except ImportError:
        assert fails
    assert gc.isenabled()
    assert frozen == ([] if fails else [False])
