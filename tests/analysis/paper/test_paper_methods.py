"""The methods paragraph: what runs say of themselves, and nothing else."""

import inspect
import re
from dataclasses import replace

import paper_runs
import pytest
from paper_runs import ODD

from critique_rl.analysis.compare import compare
from critique_rl.analysis.comparison import Comparison, LeftOut, Sweep, SweepArm
from critique_rl.analysis.paper.methods import methods_latex, methods_markdown, methods_sentences
from critique_rl.analysis.paper.preset_source import preset_source
from critique_rl.analysis.paper.run_setup import Presets, read_setup
from critique_rl.analysis.paper.setup import Setup
from critique_rl.analysis.verdict import verdict
from critique_rl.experiment.resume.inputs import preset_inputs
from critique_rl.trainer.presets import PRESETS

DOCSTRINGS = {name: inspect.getdoc(method) for name, method in PRESETS.items()}


def presets() -> Presets:
    inputs = {}
    for name in PRESETS:
        inputs |= preset_inputs(name)
    return Presets(DOCSTRINGS, inputs)


def paragraph(comparison, setup) -> str:
    return " ".join(methods_sentences(comparison, setup))


def test_the_paragraph_says_what_the_runs_hold(results, comparison):
    setup = read_setup(results, comparison, presets())
    words = paragraph(comparison, setup)
    for sentence in (
        f"We compare 3 arms (scalar, critique and {ODD}).",
        "The control is scalar, and the primary metric is pass@1/plateau.",
        "The task is lab/chain.",
        "Training starts from the policy lab.",
        "learning_rate 0.0001, max_completion_length 12",
        f"critic.kind (scalar none, critique oracle, {ODD} none)",
        "There are 3 training seeds (0, 1, 2).",
        "A run ends at the first step at or above 150,000 generated tokens.",
        "critique 150k generated tokens, 310k tokens in all, 12k critic tokens, 0.35 US dollars",
        "Policies are judged on 8 held-out problems of the test split (8 of family plateau).",
        "samples per problem 4, temperature 1.0, top-p 1.0, new tokens at most 96",
        "95% intervals cover new problems and new seeds",
        "Package versions: python 3.11.9, trl 1.16.0.",
        f"Result: {verdict(comparison)}",
        f"Runs without an evaluation, in no number: {ODD} seed 2.",
    ):
        assert sentence in words, sentence


def test_presets_have_their_paper_equation_and_differences(results, comparison):
    words = paragraph(comparison, read_setup(results, comparison, presets()))
    assert (
        "Arm critique uses the preset critique_grpo. Its source: Critique-GRPO (arXiv 2506.03106, "
        "late version), the objective of section 4.2."
    ) in words
    assert "Only failed rollouts are refined" in words
    assert "Settings that replace those of critique_grpo: refine_gamma 0.3 instead of 0.1." in words
    # nsr states those of psr, which a reader of the paper cannot look up.
    assert "Stated differences of nsr: those of psr. Those of psr: no entropy bonus" in words
    assert "have changed since" not in words


def test_a_preset_that_has_changed_since_the_runs_is_said_to(results, comparison):
    known = presets()
    later = Presets(known.docstrings, {**known.inputs, "preset nsr": "another checksum"})
    words = paragraph(comparison, read_setup(results, comparison, later))
    assert "The options of nsr have changed since these runs" in words
    assert "The options of dr_grpo" not in words


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_source_and_stated_differences(name):
    known = preset_source(name, DOCSTRINGS)
    assert re.search(r"arXiv \d{4}\.\d{5}|No paper", known.source), known
    assert known.differences
    assert "`" not in known.source + known.differences


def test_changes_in_mid_run_and_what_was_left_out_are_said(results):
    paper_runs.accept_change(results, "critique", 1)
    arms = list(paper_runs.RIGHT)
    comparison = compare(results, "scalar", "pass@1/plateau", arms, (0, 1, 2))
    reason = LeftOut("scalar", 1, "temperature 0.6 instead of 1.0")
    comparison = replace(comparison, incomparable=(reason, reason))
    words = paragraph(comparison, Setup())
    assert "critique seed 1 from step 5: prompts/refine 0a, now 0b." in words
    assert "incomparable: scalar seed 1: temperature 0.6 instead of 1.0 (2 times)." in words


def test_a_sweep_is_said_with_all_that_was_tried(comparison):
    choice = SweepArm(chosen=3e-4, at_edge=True, tried={"0.0001": 0.31, "0.0003": None})
    sweep = Sweep(
        key="trl.learning_rate",
        metric="pass@1/all",
        seeds=(900,),
        budget_share=0.4,
        arms={"scalar": choice},
    )
    words = paragraph(replace(comparison, sweep=sweep), Setup())
    assert "trl.learning_rate was chosen for every arm by pass@1/all on validation" in words
    assert "Each trial had seeds 900 and 40% of the budget." in words
    assert "Tried for scalar: 0.0001 gave 0.31, 0.0003 gave no result; chosen: 0.0003, at" in words
    assert "No search over settings is recorded" in paragraph(comparison, Setup())


def test_what_is_not_recorded_is_said_to_be_unknown(comparison):
    words = paragraph(comparison, Setup())
    for sentence in (
        "The task is not recorded.",
        "The policy before training is not recorded.",
        f"The training method is not recorded of: scalar, critique and {ODD}.",
        "The budget of a run is not recorded.",
        "The held-out problems are not recorded.",
        "Package versions are not recorded.",
    ):
        assert sentence in words
    reward = replace(comparison, primary="reward")
    assert "How intervals were made is not recorded." in paragraph(reward, Setup())
    told_so = Setup(intervals="Intervals are of seeds alone.", notes=("Logs were partial.",))
    words = paragraph(reward, told_so)
    assert "Intervals are of seeds alone." in words
    assert words.endswith("Logs were partial.")


def test_folders_without_a_config_leave_the_matter_out(results, comparison):
    for arm in paper_runs.RIGHT:
        for seed in (0, 1, 2):
            results.run(arm, seed).config.unlink()
    setup = read_setup(results, comparison, presets())
    assert (setup.task, setup.policy, setup.arms, setup.versions) == ("", "", {}, ())
    # Evaluations say themselves how they were taken.
    assert setup.evaluation.families == {"plateau": 8}


def test_the_paragraph_is_one_in_both_formats_and_commands_nothing(results, comparison):
    setup = read_setup(results, comparison, presets())
    latex = methods_latex(comparison, setup)
    body = "\n".join(line for line in latex.splitlines() if not line.startswith("%"))
    assert "\n\n" not in body
    assert r"odd\_arm \%\#\{x\}\textasciicircum{}\textasciitilde{}" in body
    assert not re.search(r"(?<!\\)[#%&_]", body)
    # The sign of a number is a minus, and dollars are escaped.
    assert "observed $-$0.25" in body
    assert re.sub(r"\\\$|\$-\$", "", body).count("$") == 0
    markdown = methods_markdown(comparison, setup)
    assert "\n\n" not in markdown
    assert r"critique\_grpo" in markdown


def test_a_comparison_read_back_from_its_file_says_the_same(comparison):
    again = Comparison.from_json(comparison.to_json())
    assert methods_sentences(again, Setup()) == methods_sentences(comparison, Setup())
