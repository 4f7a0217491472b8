#!/bin/sh
# datasets 5.2.0: values that a data set of JSON lines, and its Json feature, give back changed.
#
# Expected: what is written comes back. A column of the texts "2021-05-01" is a column of texts, an
# integer is that integer, and Features({"x": Json()}), which is meant for columns of mixed types,
# keeps the text "12" a text.
# Seen: the loader of JSON lines turns ISO dates into timestamps and integers over 64 bits into
# floats; Json reads every text that happens to be JSON ("12" -> 12, "null" -> None), and rounds
# floats to about 10 digits.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1
cd "$folder"
printf '{"x": "2021-05-01"}\n{"x": "2021-05-02"}\n' > days.jsonl
printf '{"x": 12345678901234567890123}\n{"x": 7}\n' > integers.jsonl
"$folder/venv/bin/python" - <<'PYTHON'
import datetime

from datasets import Dataset, Features, Json, load_dataset


def lines(name):
    return load_dataset("json", data_files=name, split="train")["x"][:]


def through_json(values):
    return Dataset.from_dict({"x": values}, features=Features({"x": Json()}))["x"][:]


days = lines("days.jsonl")
print("2021-05-01 ->", repr(days[0]))
assert days[0] == datetime.datetime(2021, 5, 1), days

integers = lines("integers.jsonl")
print("12345678901234567890123 ->", repr(integers[0]))
assert integers == [1.2345678901234568e22, 7.0], integers

texts = through_json(["12", "null", '{"a": 1}', "hard"])
print("'12', 'null', '{\"a\": 1}', 'hard' ->", texts)
assert texts == [12, None, {"a": 1}, "hard"], texts

[number] = through_json([[5.495038734744293e-24]])
print("5.495038734744293e-24 ->", number)
assert number != [5.495038734744293e-24], number
PYTHON
