"""What someone does with saved folders who has transformers and no gumlab: a script.

It reads a JSON list of jobs from its input and prints the list of their results, or errors. A job:
`code`, a block of a model card, which makes `model` and `tokenizer`; `ids`, a sequence; `refused`,
code that must fail; and, where it is to be trained and saved too, `again`, the folder to save to,
and `again_code`, which loads that.
"""

import json
import sys

import torch
import transformers

sys.modules["gumlab"] = None  # to import it is an error
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)


def made_by(code):
    names = {}
    exec(code, names)
    return names["model"].eval(), names.get("tokenizer")


def written(model, ids):
    return model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0].tolist()


def loss_of(model, ids):
    batch = torch.tensor([ids])
    return model(input_ids=batch, labels=batch).loss


def fails(code):
    try:
        exec(code, {})
    except Exception:
        return True
    return False


def done(job):
    model, tokenizer = made_by(job["code"])
    result = {"class": type(model).__name__, "refused": fails(job.get("refused", "1 / 0"))}
    if model.can_generate():
        result["written"] = written(model, job["ids"])
        result["loss"] = loss_of(model, job["ids"]).item()
    if tokenizer is not None:
        result["read"] = tokenizer("w4 w9 w17")["input_ids"]
    if "again" in job:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        loss_of(model.train(), job["ids"]).backward()
        optimizer.step()
        model.eval().save_pretrained(job["again"])
        again, _ = made_by(job["again_code"])
        result["trained"] = loss_of(again, job["ids"]).item()
        result["same"] = all(
            torch.equal(value, again.state_dict()[name])
            for name, value in model.state_dict().items()
        )
    return result


def answered(job):
    try:
        return done(job)
    except Exception as error:  # the next job has its turn
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    print(json.dumps([answered(job) for job in json.load(sys.stdin)]))
