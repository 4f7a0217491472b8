"""Answer forms of public data sets, judged by the verifier that `init` chooses: table by verifier.

PYTHONPATH=.:tests python tests/benchmarks/judged_forms.py
"""

from __future__ import annotations

from collections import defaultdict

from answer_forms import Judged, judge_forms

HEAD = (
    "| forms | verifier | kinds | right forms | of them unreadable | of them wrong "
    "| wrong forms | of them right |\n|---|---|---|---|---|---|---|---|"
)


def line(name: str, verifier: str, judged: list[Judged]) -> str:
    right = [form for form in judged if form.row["right"]]
    wrong = [form for form in judged if not form.row["right"]]
    kinds = ", ".join(dict.fromkeys(form.row["kind"] for form in judged))
    unread = sum(form.is_right_unread for form in right)
    called_wrong = sum(form.is_right_called_wrong for form in right)
    called_right = sum(form.is_wrong_called_right for form in wrong)
    cells = (name, verifier, kinds, len(right), unread, called_wrong, len(wrong), called_right)
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main() -> None:
    print(HEAD)
    unread = []
    for name in ("public.jsonl", "reported.jsonl", "signs_and_words.jsonl"):
        groups = defaultdict(list)
        for form in judge_forms(name):
            groups[form.verifier].append(form)
        for verifier, judged in groups.items():
            print(line(name, verifier, judged))
            unread += [form for form in judged if form.is_right_unread]
    print("\nRight forms that are unreadable:\n")
    for form in unread:
        shown = form.row["completion"]
        print(f"- `{shown}` for `{form.row['answer']}`: {form.verdict.reason}")


if __name__ == "__main__":
    main()
