"""Finished runs for the tests of a paper's files."""

import paper_runs
import pytest

from critique_rl.analysis.compare import compare


@pytest.fixture
def results(tmp_path):
    """The pipeline's folder of `paper_runs`."""
    return paper_runs.make(tmp_path)[1]


@pytest.fixture
def comparison(results):
    """Three arms, of which one lost and lacks a seed."""
    return compare(results, "scalar", "pass@1/plateau", list(paper_runs.RIGHT), (0, 1, 2))
