"""LaTeX tables: their structure, their numbers, and that no name commands anything."""

import re
from dataclasses import replace

import pytest
from paper_runs import ODD

from critique_rl.analysis.comparison import Cost, LeftOut, MissingRun
from critique_rl.analysis.paper.setup import Setup
from critique_rl.analysis.paper.tables import arms_latex, differences_latex
from critique_rl.analysis.table import LATEX_ESCAPES, escape_latex

HOSTILE = r"*[\input{x}] a_b & 50% #1 $x$ ^~ `--`"
BUDGET = "A run ends at the first step at or above 150,000 generated tokens."


def body_of(text: str) -> str:
    """LaTeX without comments."""
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    return "\n".join(lines)


def check_structure(text: str) -> list[list[str]]:
    """Check what LaTeX would refuse, and give the cells of every row."""
    body = body_of(text)
    open_environments = []
    for kind, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", body):
        if kind == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert open_environments == []
    [columns] = re.findall(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", body)
    rows = []
    for line in body.splitlines():
        if line.endswith(r" \\"):
            rows.append(re.split(r"(?<!\\)&", line.removesuffix(r"\\")))
    assert {len(row) for row in rows} == {len(columns)}
    for row in rows:
        # A bracket or a star behind the row before would belong to its line break.
        assert not row[0].lstrip().startswith(("[", "*"))
    check_signs(body)
    return [[cell.strip() for cell in row] for row in rows]


def check_signs(body: str) -> None:
    """No sign of a command outside of the commands, numbers and cells that tables are made of."""
    plain = re.sub(r"\\begin\{tabular\}\{.*?\}$", "", body, flags=re.MULTILINE)
    plain = re.sub(r"\\label\{[a-z:]+\}", "", plain)
    # Numbers are in mathematics, and hold nothing else.
    plain = re.sub(r"\$[-+<0-9., \[\]]+\$", "", plain)
    for escape in LATEX_ESCAPES.values():
        plain = plain.replace(escape, "")
    plain = re.sub(r" & | \\\\$", " ", plain, flags=re.MULTILINE)
    assert not re.search(r"[#$%&_^~]", plain), plain
    # Braces close in turn.
    depth = 0
    for sign in plain:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    commands = set(re.findall(r"\\([A-Za-z]+)", plain))
    assert commands <= {
        "begin",
        "end",
        "centering",
        "small",
        "footnotesize",
        "setlength",
        "tabcolsep",
        "caption",
        "toprule",
        "midrule",
        "bottomrule",
    }


def test_arms_have_intervals_counts_and_costs(comparison):
    text = arms_latex(comparison, Setup(budget=BUDGET))
    heads, base, scalar, critique, odd = check_structure(text)
    assert heads == [
        "arm",
        "seeds",
        "problems",
        "pass@1/plateau",
        "generated",
        "critic",
        "total",
        r"US\$",
    ]
    assert base[:4] == ["before training", "--", "--", "$0.50$"]
    # Right answers of 4: 1 and 2 by turns, so .375.
    assert scalar[:3] == ["scalar (control)", "3", "8"]
    assert re.fullmatch(r"\$0\.38\$ \$\[0\.\d\d, 0\.\d\d\]\$", scalar[3])
    assert critique[4:] == ["150k", "12k", "310k", "0.35"]
    assert odd[0] == escape_latex(ODD)
    assert odd[1] == "2"
    caption = body_of(text)
    for words in (
        "2 to 3 seeds and 8 problems per arm",
        r"95\% interval for new problems and seeds",
        BUDGET,
        "Costs are means per run: tokens generated for training, tokens of critics, tokens in all",
    ):
        assert words in caption


def test_differences_have_both_intervals_and_their_counts(comparison):
    text = differences_latex(comparison, Setup(budget=BUDGET))
    heads, critique, odd = check_structure(text)
    assert heads == [
        "arm",
        "metric",
        "difference",
        r"95\% interval",
        "all pairs at once",
        "seeds",
        "problems",
    ]
    [pair, _] = comparison.comparisons
    low, high = pair.ci95
    assert critique[2:4] == ["$+0.50$", f"$[{low:+.2f}, {high:+.2f}]$"]
    assert odd[2] == "$-0.25$"
    assert odd[5:] == ["2", "8"]
    assert "The intervals of all 3 pairs of arms on pass@1/plateau hold at once." in text
    assert "not corrected for several arms" in text


def test_several_metrics_have_their_intervals_in_a_second_line(comparison):
    arms = {}
    for arm, summary in comparison.arms.items():
        primary = summary.metrics["pass@1/plateau"]
        metrics = {"pass@1/plateau": primary, "pass@1/ladder": replace(primary, ci95=None)}
        arms[arm] = replace(summary, metrics=metrics)
    text = arms_latex(replace(comparison, arms=arms, base=None), Setup())
    heads, scalar, intervals, *_ = check_structure(text)
    assert heads[3:5] == ["pass@1/plateau", "pass@1/ladder"]
    assert scalar[3:5] == ["$0.38$", "$0.38$"]
    assert intervals[:3] == ["", "", ""]
    assert re.fullmatch(r"\$\[0\.\d\d, 0\.\d\d\]\$", intervals[3])
    assert intervals[4:] == [""] * (len(heads) - 4)


def test_hostile_names_command_nothing(comparison):
    arms = {HOSTILE if arm == ODD else arm: summary for arm, summary in comparison.arms.items()}
    pairs = []
    for pair in comparison.comparisons:
        pairs.append(replace(pair, arm=HOSTILE if pair.arm == ODD else pair.arm))
    lost = (MissingRun(f"{HOSTILE} lost", 0),)
    odd = replace(comparison, arms=arms, comparisons=tuple(pairs), missing=lost)
    for text in (arms_latex(odd, Setup()), differences_latex(odd, Setup())):
        check_structure(text)
        assert r"\textbackslash{}input\{x\}" in text
        assert r"\textasciigrave{}-{}-\textasciigrave{}" in text


def test_an_arm_without_a_run_has_a_row_and_is_named(comparison):
    lost = (MissingRun("never", 0), MissingRun("never", 1))
    left_out = (LeftOut("other", 0, "temperature 0.6 instead of 1.0"),)
    text = arms_latex(replace(comparison, missing=lost, incomparable=left_out), Setup())
    rows = check_structure(text)
    assert [row[:2] for row in rows[-2:]] == [["never", "0"], ["other", "0"]]
    assert "Without a run to compare: never and other." in text


def test_what_is_not_known_has_no_number(comparison):
    arms = {}
    for arm, summary in comparison.arms.items():
        metric = replace(summary.metrics["pass@1/plateau"], ci95=None, problems=None)
        arms[arm] = replace(summary, cost=Cost(), metrics={"pass@1/plateau": metric})
    pairs = [replace(pair, ci95=None, together=None) for pair in comparison.comparisons]
    bare = replace(comparison, arms=arms, comparisons=tuple(pairs), pairs=(), base=None)
    text = arms_latex(bare, Setup())
    heads, scalar, *_ = check_structure(text)
    assert heads == ["arm", "seeds", "problems", "pass@1/plateau"]
    assert scalar == ["scalar (control)", "3", "--", "$0.38$"]
    assert "Costs are not recorded." in text
    assert "no interval can be given" in text
    _, critique, _ = check_structure(differences_latex(bare, Setup()))
    assert critique[3] == "--"


def test_narrow_intervals_have_three_decimals_and_p_stands_where_it_is_known(comparison):
    [critique, odd] = comparison.comparisons
    narrow = replace(critique, difference=0.0042, ci95=(-0.0011, 0.0085), p=0.0004)
    pairs = (narrow, replace(odd, difference=-0.0001))
    text = differences_latex(replace(comparison, comparisons=pairs, pairs=()), Setup())
    heads, first, second = check_structure(text)
    assert heads[-1] == "p"
    assert first[2:4] == ["$+0.004$", "$[-0.001, +0.009]$"]
    assert first[-1] == "$<0.001$"
    assert second[-1] == "--"
    # No difference has the sign of one.
    assert second[2] == "$+0.000$"
    assert "exact sign-flip test" in text


@pytest.mark.parametrize(("name", "needs"), [("\N{GREEK SMALL LETTER BETA}", True), ("é", False)])
def test_letters_beyond_latin_are_announced(comparison, name, needs):
    plain = {"scalar": comparison.arms["scalar"], name: comparison.arms["critique"]}
    text = arms_latex(replace(comparison, arms=plain, missing=()), Setup())
    assert ("XeLaTeX" in text) == needs
