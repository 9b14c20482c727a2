"""A real language model, cut, healed, exported, chatting in llama.cpp: results/chat.md.

    gumlab fetch smollm2-135m
    python benchmarks/quality/chat.py [--base smollm2-135m]

No data is needed: the dense model writes its own lesson. It answers questions about some topics in
llama.cpp, greedily; these answers calibrate the cut ("recommended", widths a multiple of 32) and
heal it, with the dense model as teacher. Questions about other topics are the test. Dense, cut and
healed model are exported as q8_0, asked the same, and timed in turns. Notebook 12 shows the rows,
which are stored in gumlab/assets/real_chat.json. What was made is kept in runs/chat: stopped, it
goes on there.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness

import gumlab as gl
from gumlab.serving import LlamaCpp, compare
from gumlab.tasks import Example, Task

BASE = "smollm2-135m"
KEEPS = (0.75, 0.5)
MULTIPLE_OF = 32  # the numbers of a block of q8_0
STEPS = 80
SETTINGS = {"batch_size": 4, "lr": 2e-4, "precision": "bf16", "progress": False}
ANSWER = 80  # tokens of an answer at most
SHOWN = 6  # test questions whose answers are stored
FORMS = (
    "Explain in simple words what {} is.",
    "Write two sentences about {}.",
    "Why is {} useful?",
    "Give me three facts about {}.",
    "Tell a very short story in which {} plays a part.",
    "What should a beginner know about {}?",
)
LEARNED = (
    "bread", "the moon", "a bicycle", "rain", "a library", "chess", "the heart", "a compass",
    "coffee", "a bridge", "music", "the desert", "a garden", "electricity", "a map", "winter",
    "a bee", "mathematics", "a train", "salt", "the ocean", "a clock", "friendship", "a volcano",
)  # fmt: skip
TESTED = ("a candle", "football", "the sun", "a newspaper", "cheese", "a river")


def questions(topics: tuple[str, ...]) -> list[str]:
    """Each form with each topic."""
    return [form.format(topic) for topic in topics for form in FORMS]


def as_chat(question: str) -> list[dict[str, str]]:
    """A question as the messages of a chat."""
    return [{"role": "user", "content": question}]


def answers(opened: LlamaCpp, tokenizer: Any, asked: list[str]) -> list[str]:
    """What a model in llama.cpp says to each question."""
    said = []
    for question in asked:
        text = tokenizer.apply_chat_template(
            as_chat(question), add_generation_prompt=True, tokenize=False
        )
        ids = tokenizer(text, add_special_tokens=False).input_ids
        answer = opened.complete(ids, tokens=ANSWER)
        said.append(answer["choices"][0]["text"].strip())
    return said


def lesson(path: Path, opened: LlamaCpp, tokenizer: Any, topics: tuple[str, ...]) -> list[Example]:
    """The dense model's own answers about some topics; those that are there are not asked again."""
    if path.exists():
        rows = json.loads(path.read_text(encoding="utf-8"))
    else:
        asked = questions(topics)
        rows = list(zip(asked, answers(opened, tokenizer, asked), strict=True))
        path.write_text(json.dumps(rows), encoding="utf-8")
    return [Example(as_chat(question), answer) for question, answer in rows if answer]


def made(folder: Path, build: Any) -> Any:
    """The model that a folder holds, or that `build` makes."""
    if not (folder / "config.json").exists():
        model, tokenizer = build()
        gl.save(model, tokenizer, folder)
    return gl.load(str(folder), device="cpu")[0]


def main() -> None:
    parser = harness.options(__doc__, rounds=12)
    parser.add_argument("--base", default=BASE, help=f"a chat model (default: {BASE})")
    args = harness.parsed(parser)
    keeps, steps, learned = (KEEPS[-1:], 2, LEARNED[:1]) if args.quick else (KEEPS, STEPS, LEARNED)
    work = args.runs / "chat" / Path(args.base).name
    work.mkdir(parents=True, exist_ok=True)
    dense, tokenizer = gl.load(args.base, device="cpu")
    if not tokenizer.chat_template:
        sys.exit(f"{args.base} has no chat template, so it cannot chat. Take a chat model.")

    file = work / "dense-f16.gguf"
    if not file.exists():
        gl.export(dense, tokenizer, file, dtype="f16")
    opened = LlamaCpp(file, threads=1, context=512)
    train = lesson(work / "lesson.json", opened, tokenizer, learned)
    test = lesson(work / "test.json", opened, tokenizer, TESTED)
    del opened

    models = {"dense": dense}
    for keep in keeps:

        def cut(keep: float = keep) -> Any:
            return gl.prune(
                dense, "recommended", tokenizer, train,
                keep=keep, multiple_of=MULTIPLE_OF, limit=None, batch_size=8,
            ), tokenizer  # fmt: skip

        name = f"{keep:.0%} kept"
        models[name] = made(work / f"cut-{keep}", cut)

        def heal(folder: Path = work / f"cut-{keep}") -> Any:
            model, _ = gl.load(str(folder), device="cpu")
            gl.train(model, tokenizer, train, steps=steps, teacher=dense, **SETTINGS)
            return model, tokenizer

        models[f"{name}, healed"] = made(work / f"healed-{keep}", heal)

    files, rows = {}, []
    judged = Task("chat", "rouge", test=test)
    shown = questions(TESTED)[:: len(FORMS) + 1][:SHOWN]  # another topic and form each
    for name, model in models.items():
        files[name] = work / f"{name.replace(', ', '-').replace(' ', '-')}-q8_0.gguf"
        gl.export(model, tokenizer, files[name], dtype="q8_0")
        loss = gl.evaluate(model, tokenizer, judged, generated=0)["loss"]
        said = answers(LlamaCpp(files[name], threads=1, context=512), tokenizer, shown)
        rows.append({"model": name, "loss": loss, "answers": said})
        print(f"{name}: perplexity {math.exp(loss):.2f}\n  {said[0]}", flush=True)
    speeds = compare(list(files.values()), tokens=128, decoded=64, repeats=max(args.rounds, 2))
    for row in rows:
        row.update(speeds[str(files[row["model"]])])
    stored = {
        "made_by": harness.made_by(args.command).strip(),
        "machine": harness.machine(),
        "steps": steps,
        "questions": shown,
        "rows": rows,
    }
    is_real = args.base == BASE and not args.quick
    if args.base != BASE:
        args.out = work  # the results are the real model's
    target = Path(gl.__file__).parent / "assets" if is_real else args.out
    (target / "real_chat.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    harness.write(args, "chat.md", report(args, stored))


def report(args: Any, stored: dict[str, Any]) -> str:
    """results/chat.md."""
    dense = stored["rows"][0]
    table, parts = [], []
    for row in stored["rows"]:
        line = {
            "model": row["model"],
            "parameters": f"{row['parameters']:,}",
            "file, MB": f"{row['file_bytes'] / 1e6:.1f}",
            "perplexity": f"{math.exp(row['loss']):.2f}",
        }
        for speed, before in zip(row["speed"], dense["speed"], strict=True):
            threads = f"{speed['threads']} thread(s)"
            for what, key in (("read", "prefill_tokens_per_s"), ("write", "decode_tokens_per_s")):
                line[f"{what}/s, {threads}"] = f"{speed[key]:.0f} ({speed[key] / before[key]:.2f}x)"
        table.append(line)
    for number, question in enumerate(stored["questions"]):
        said = "\n".join(
            f"- **{row['model']}**: {row['answers'][number]}" for row in stored["rows"]
        )
        parts.append(f"### {question}\n\n{said}\n")
    return (
        f"# A chat with the dense and the smaller model\n\n{stored['made_by']} "
        f"{stored['machine']}. Base `{args.base}`, recommended cut, calibrated on and healed "
        f"({stored['steps']} steps, the dense model as teacher) with the dense model's own answers "
        "about other topics. "
        "Perplexity: of the dense model's own answers to the test questions. Tokens a second in "
        "llama.cpp, q8_0, median of turns, and the factor to dense.\n\n"
        f"{harness.markdown(table)}\n## Answers, greedy, q8_0\n\n" + "\n".join(parts)
    )


if __name__ == "__main__":
    main()
