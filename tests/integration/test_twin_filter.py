"""The twin filter by a double loop, alone and while training; and what else a Pruner renews."""

import itertools
import math
import random
import warnings

import pytest
import torch
from helpers.models import N, hooks_of, logits_of, loss_of, permuted, tiny
from helpers.texts import make_examples, one_batch

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.gram import twin_pairs, unrebuilt
from gumlab.rules import Rule
from gumlab.scoring import squared_norm
from gumlab.selection import demote_twins, layer_widths, schedule, select, top
from gumlab.tasks.batches import shuffled

EXACT_GRAMS = {"gram_every": 1, "gram_tokens": 1.0, "gram_memory": 0.0}


def relatives(n, tokens=60):
    """h, (tokens, n): each neuron is +- one of n/2 sources and some noise; the first is dead."""
    sources = torch.randn(tokens, max(1, n // 2))
    h = sources[:, torch.randint(sources.shape[1], (n,))] * (torch.randint(2, (n,)) * 2 - 1)
    h = (h + torch.rand(n) * torch.randn(tokens, n)) * torch.logspace(-3, 3, n)
    h[:, 0] = 0
    return h


def draw_case(seed):
    """Scores (different, tied or all equal), Gram matrices, keep and a threshold."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    sizes = [draw.randint(4, 30) for _ in range(draw.randint(1, 4))]
    kind = draw.choice(["different", "some ties", "all equal"])
    scores = [torch.randn(n) for n in sizes]
    if kind != "different":
        scores = [(s * 2).round() if kind == "some ties" else torch.zeros_like(s) for s in scores]
    grams = [h.T @ h for h in map(relatives, sizes)]
    return scores, grams, draw.uniform(0.3, 0.9), draw.choice([0.5, 0.8, 0.95])


def is_demoted(score, gram, threshold, i):
    """Whether some j of the layer is like i and ranks above it, ties by position."""
    for j in range(len(score)):
        energies = float(gram[i, i]) * float(gram[j, j])
        alike = i != j and energies and abs(float(gram[i, j])) / math.sqrt(energies) > threshold
        if alike and (score[j] > score[i] or (score[j] == score[i] and j < i)):
            return True
    return False


def queue_by_hand(scores, grams, threshold):
    """All (layer, neuron): first those without a better partner, each part highest score first."""
    every = [(layer, i) for layer, s in enumerate(scores) for i in range(len(s))]
    behind = {(k, i): is_demoted(scores[k], grams[k], threshold, i) for k, i in every}
    return sorted(every, key=lambda p: (behind[p], -float(scores[p[0]][p[1]]), *p))


def kept_by_hand(scores, grams, threshold, keep, scope):
    """The neurons that stay in each layer, as sets, with a floor of one."""
    queue = queue_by_hand(scores, grams, threshold)
    layers = range(len(scores))
    if scope == "layer":
        widths = layer_widths(scores, keep)  # these depend on the sizes alone
        kept = [p for k in layers for p in [q for q in queue if q[0] == k][: widths[k]]]
    else:
        kept = [next(q for q in queue if q[0] == k) for k in layers]
        rest = round(keep * sum(map(len, scores))) - len(kept)
        kept += [p for p in queue if p not in kept][:rest]
    return [{i for layer, i in kept if layer == k} for k in layers]


def chosen(masks):
    return [set(m.nonzero().flatten().tolist()) for m in masks]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def quiet_select(*arguments, **options):
    """`select` without the floor's warning, which these tests are not about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return select(*arguments, **options)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("seed", range(30))
def test_the_filter_is_the_double_loop_and_meets_the_budget(seed, scope):
    scores, grams, keep, threshold = draw_case(seed)
    masks = quiet_select(scores, keep, scope, grams=grams, twin_filter=threshold)
    assert chosen(masks) == kept_by_hand(scores, grams, threshold, keep, scope)
    assert sum(int(m.sum()) for m in masks) == round(keep * sum(map(len, scores)))


def test_the_pairs_are_those_above_the_threshold_in_both_orders():
    gram = torch.tensor([[1.0, -0.5, 0.0], [-0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert twin_pairs(gram, 0.49).tolist() == [[0, 1], [1, 0]]
    assert twin_pairs(gram, 0.5).tolist() == []


def test_of_two_twins_the_higher_stays_and_of_equal_ones_the_first():
    h = torch.randn(50, 4)
    h[:, 1], h[:, 3] = -2 * h[:, 0], 0.5 * h[:, 2]
    for scores, stays in [([1, 2, 3, 4], [1, 3]), ([4, 3, 2, 1], [0, 2]), ([1, 1, 1, 1], [0, 2])]:
        masks = select([torch.tensor(scores).float()], 0.5, grams=[h.T @ h])
        assert chosen(masks) == [set(stays)]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_without_a_partner_above_the_threshold_nothing_changes(scope):
    """In each layer every second neuron has a cosine of about 0.5 with the one before."""
    torch.manual_seed(0)
    scores, grams = [torch.randn(20), torch.randn(30)], []
    for n in (20, 30):
        h = torch.randn(400, n // 2).repeat_interleave(2, 1) + torch.randn(400, n)
        grams.append(h.T @ h)
    plain = select(scores, 0.6, scope)
    assert same(select(scores, 0.6, scope, grams=grams), plain)
    assert not same(select(scores, 0.6, scope, grams=grams, twin_filter=0.3), plain)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_where_all_neurons_are_one_the_budget_is_met_all_the_same(scope):
    torch.manual_seed(0)
    scores = [torch.randn(20), torch.randn(30)]
    grams = [
        h.T @ h for h in (torch.randn(40, 1).expand(-1, 20), torch.randn(40, 1).expand(-1, 30))
    ]
    masks = quiet_select(scores, 0.3, scope, grams=grams)
    assert sum(int(m.sum()) for m in masks) == 15
    for s, m in zip(scores, masks, strict=True):  # all but a layer's best are behind, in order
        assert torch.equal(m, top(s, int(m.sum())))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_permuted_neurons_get_permuted_masks(scope):
    torch.manual_seed(0)
    hs = [relatives(20), relatives(30)]
    scores, orders = [torch.randn(20), torch.randn(30)], [torch.randperm(20), torch.randperm(30)]
    masks = select(scores, 0.5, scope, grams=[h.T @ h for h in hs])
    moved = select(
        [s[o] for s, o in zip(scores, orders, strict=True)],
        0.5,
        scope,
        grams=[h[:, o].T @ h[:, o] for h, o in zip(hs, orders, strict=True)],
    )
    assert same([m[o] for m, o in zip(masks, orders, strict=True)], moved)
    assert not same(masks, select(scores, 0.5, scope))  # there was something to filter


def test_fixed_widths_and_multiples_hold_under_the_filter():
    scores, grams, *_ = draw_case(3)
    widths = [max(1, len(s) // 3) for s in scores]
    masks = select(scores, widths=widths, grams=grams)
    assert [int(m.sum()) for m in masks] == widths
    masks = quiet_select(scores, 0.5, "global", multiple_of=2, grams=grams)
    assert all(int(m.sum()) % 2 == 0 or m.all() for m in masks)


@pytest.mark.parametrize("spread", [3.0, 40.0])
def test_the_demoted_keep_their_order(spread):
    """However far apart the scores are; greedy OBS's differ by 1e-9 of the smallest."""
    torch.manual_seed(0)
    h = torch.randn(40, 1).expand(-1, 12)
    score = 10 ** torch.empty(12, dtype=torch.float64).uniform_(-spread, 0)
    (demoted,) = demote_twins([score], [twin_pairs(h.T @ h)])
    assert demoted.argsort(descending=True, stable=True).tolist() == (
        score.argsort(descending=True, stable=True).tolist()
    )


def test_infinite_scores_rank_as_without_the_filter():
    """Infinity is how a caller protects a neuron, or gives one up."""
    h = torch.randn(50, 6)
    h[:, 3] = h[:, 1]
    score = torch.tensor([1.0, math.inf, 3, 2, -math.inf, 5])
    assert chosen(select([score], 0.5, grams=[h.T @ h])) == [{1, 2, 5}]


@pytest.mark.parametrize("grams", [[], [torch.eye(6), torch.eye(6)], [torch.eye(5)]])
def test_gram_matrices_that_do_not_fit_get_a_sentence(grams):
    with pytest.raises(gl.GumlabError, match=r"[Gg]ram"):
        select([torch.randn(6)], 0.5, grams=grams)


def test_standardised_scores_have_no_scale_and_no_origin():
    torch.manual_seed(0)
    scores = [torch.randn(20), torch.randn(30), torch.randn(50)]
    grams = [h.T @ h for h in map(relatives, (20, 30, 50))]
    changed = [100 * scores[0], scores[1] - 7, 0.01 * scores[2] + 3]
    for options in ({}, {"grams": grams}):
        masks = select(scores, 0.3, "global", standardise=True, **options)
        assert same(masks, select(changed, 0.3, "global", standardise=True, **options))
        assert sum(int(m.sum()) for m in masks) == 30
        plain = quiet_select(changed, 0.3, "global", **options)
        assert not same(masks, plain)
        assert sum(int(m.sum()) for m in plain) == 30


def test_standardising_is_mean_0_and_variance_1():
    """Of all N neurons, not N - 1: a layer of three would rank otherwise."""
    torch.manual_seed(0)
    scores = [torch.tensor([1.0, 2.0, 6.0]), torch.rand(60) ** 4]
    by_hand = [s.double() - s.double().mean() for s in scores]
    by_hand = [s / s.square().mean().sqrt() for s in by_hand]
    for keep in torch.linspace(0.1, 0.9, 30).tolist():
        want = quiet_select(by_hand, keep, "global")
        assert same(quiet_select(scores, keep, "global", standardise=True), want)


def test_a_layer_whose_scores_are_equal_is_of_the_average():
    """Its standardised scores are 0, not the rounding of its mean: behind all above their mean."""
    torch.manual_seed(0)
    other = torch.randn(100)
    above = int((other > other.mean()).sum())
    for value, dtype in itertools.product((0.1, 0.7, 1e-3), (torch.float32, torch.float64)):
        equal = torch.full((24,), value, dtype=dtype)
        masks = select([equal, other.to(dtype)], 0.5, "global", standardise=True)
        assert [int(m.sum()) for m in masks] == [62 - above, above], (value, dtype)


PAIRS = [(i, i + 12) for i in range(0, 12, 2)]


def duplicated(name="gpt2", seed=0):
    """Six pairs in each layer with the same incoming weights, and large outgoing ones."""
    model = tiny(name, seed)
    for layer in neurons(model):
        for a, b in PAIRS:
            layer.incoming().data[b] = layer.incoming().data[a]
            layer.fc[0].bias.data[b] = layer.fc[0].bias.data[a]
            layer.outgoing().data[[a, b]] *= 3
    return model


def pairs_kept_whole(masks):
    return sum(bool(m[a] and m[b]) for m in masks for a, b in PAIRS)


def pruned(model, tokenizer, task, method, steps=20, **options):
    pruner = gl.Pruner(model, method, 0.5, steps, **options)
    gl.train(model, tokenizer, task, steps=steps, pruner=pruner, batch_size=4, progress=False)
    return pruner


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("magnitude", {}),
        ("magnitude", {"scope": "global"}),
        ("random", {}),
        ("gum", {"lambda_gum": 0.0}),
        ("gum", {"lambda_gum": 0.0, "gradient": "gate"}),
    ],
)
def test_both_twins_of_a_pair_never_stay(method, options, tokenizer, task):
    with_filter, without = (
        pruned(duplicated(), tokenizer, task, method, twin_filter=t, **options) for t in (0.8, None)
    )
    assert pairs_kept_whole(with_filter.masks) == 0
    assert pairs_kept_whole(without.masks) > 0
    assert sum(int(m.sum()) for m in with_filter.masks) == N


@pytest.mark.parametrize("method", ["random", "magnitude", "movement", "gum", "obs"])
def test_a_step_selects_as_select_does_with_the_grams_of_the_last_refresh(method, tokenizer):
    """Twin computation from the ungated activations of the batch, by hooks of our own."""
    model, threshold = duplicated().train(), 0.5
    seen, grams = watched(model), None
    pruner = gl.Pruner(
        model,
        method,
        0.4,
        12,
        scope="global",
        twin_filter=threshold,
        **EXACT_GRAMS | {"gram_every": 2},
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    filtered = 0
    for t, batch in enumerate(shuffled(model, tokenizer, make_examples(12), 6, 8, seed=0), 1):
        loss_of(model, batch).backward()
        if t % 2:
            grams = grams_of(seen, batch)
        pruner.step()
        scores, v = [s.detach() for s in pruner.scores], schedule(t, 12, 0.4)
        want = quiet_select(scores, v, "global", grams=grams, twin_filter=threshold)
        assert same(pruner.masks, want), t
        filtered += not same(want, quiet_select(scores, v, "global"))
        optimizer.step()
        optimizer.zero_grad()
    assert filtered > 2


def watched(model):
    """A list of h of each layer, (B, T, N), of the last forward pass, before any later hook."""
    seen = [None] * len(neurons(model))
    for i, layer in enumerate(neurons(model)):

        def keep(module, inputs, i=i):
            seen[i] = inputs[0].detach()

        layer.proj.register_forward_pre_hook(keep)
    return seen


def grams_of(seen, batch):
    """h^T h / tokens of every layer over the real tokens."""
    rows = [h[batch["attention_mask"].bool()] for h in seen]
    return [h.T @ h / len(h) for h in rows]


@pytest.mark.parametrize("name", ["gpt2", "llama", "phi3"])
def test_obs_is_renewed_from_the_ungated_activations_of_the_kept(name, tokenizer):
    """||w_i||^2 times what the neurons kept before the step cannot rebuild, at every step."""
    model = tiny(name).train()
    seen, removed = watched(model), 0
    pruner = gl.Pruner(model, "obs", 0.4, 10, start=0.0, **EXACT_GRAMS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for batch in shuffled(model, tokenizer, make_examples(12), 12, 6, seed=0):
        before = pruner.masks
        loss_of(model, batch).backward()
        pruner.step()
        grams = grams_of(seen, batch)
        for layer, got, gram, mask in zip(
            neurons(model), pruner.scores, grams, before, strict=True
        ):
            want = squared_norm(layer) * unrebuilt(gram, kept=mask)
            torch.testing.assert_close(got, want, rtol=1e-3, atol=0)
            removed += int((~mask).sum())
        assert same(pruner.masks, select(pruner.scores, pruner.fraction_kept, "global"))
        optimizer.step()
        optimizer.zero_grad()
    assert removed > N


@pytest.mark.parametrize(("keep", "twin_filter"), [(0.5, None), (0.21, 0.8)])
@pytest.mark.parametrize("name", ["gpt2", "llama", "phi3"])
def test_obs_ends_at_the_budget_and_shrinks_to_what_it_gates(
    name, keep, twin_filter, tokenizer, task
):
    model = tiny(name)
    pruner = gl.Pruner(model, "obs", keep, 12, twin_filter=twin_filter, gram_every=2)
    history = gl.train(
        model, tokenizer, task, steps=12, pruner=pruner, batch_size=4, progress=False
    )
    assert history.kept == [round(schedule(t, 12, keep) * 48) / 48 for t in range(1, 13)]
    assert sum(int(m.sum()) for m in pruner.masks) == round(keep * 48)
    batch = one_batch(model, tokenizer, task.test)
    gated = logits_of(model, batch)
    torch.testing.assert_close(
        logits_of(gl.shrink(model, pruner.masks), batch), gated, rtol=1e-3, atol=1e-4
    )
    pruner.remove()
    assert hooks_of(model) == 0


def test_obs_keeps_what_cannot_be_rebuilt(tokenizer, task):
    """Of copies one is enough: fewer pairs stay whole than by how much each neuron is used."""
    model = duplicated()
    energy = gl.redundancy(model, tokenizer, task).energy
    used = [squared_norm(layer) * e for layer, e in zip(neurons(model), energy, strict=True)]
    chance = pairs_kept_whole(select(used, 0.5, "global"))
    assert pairs_kept_whole(pruned(model, tokenizer, task, "obs").masks) < chance / 2


class Similarity:
    """A similarity that writes down what it is called with."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def __call__(self, gram, mask):
        self.calls.append((tuple(gram.shape), mask.dtype, tuple(mask.shape), int(mask.sum())))
        return self.answer.clone()


def gum_run(tokenizer, task, **options):
    """A GUM run over 10 steps, with a refresh at steps 1, 3, 5 and 7."""
    pruner = gl.Pruner(
        tiny("gpt2"), "gum", 0.5, 10, **({"gram_every": 2, "penalty": 1.0} | options)
    )
    gl.train(pruner.model, tokenizer, task, steps=10, pruner=pruner, batch_size=4, progress=False)
    return pruner


def test_a_similarity_of_zeros_is_gum_without_its_term(tokenizer, task):
    zeros = Similarity(torch.zeros(N))
    ours = gum_run(tokenizer, task, similarity=zeros)
    plain = gum_run(tokenizer, task, lambda_gum=0.0, gram_every=8)  # no sums are kept
    assert same(ours.scores, plain.scores)
    assert same(ours.masks, plain.masks)
    assert not same(ours.scores, gum_run(tokenizer, task).scores)  # the paper's similarity counts
    assert len(zeros.calls) == 4 * len(ours.layers)
    assert {call[:3] for call in zeros.calls} == {((N, N), torch.bool, (N,))}
    assert zeros.calls[0][3] == N
    assert zeros.calls[-1][3] < N  # the masks in force


def test_the_neurons_that_a_similarity_names_go(tokenizer, task):
    first = torch.zeros(N)
    first[:12] = 1.0
    halves = [
        sum(
            int(m[:12].sum())
            for m in gum_run(tokenizer, task, similarity=Similarity(answer), lambda_gum=50.0).masks
        )
        for answer in (first, first.flip(0))
    ]
    assert halves[0] < N / 2 < halves[1]


@pytest.mark.parametrize("threshold", [0.8, 0.0])
def test_soft_movement_has_no_queue_to_filter(gpt2, threshold):
    with pytest.raises(
        gl.GumlabError, match=r"no widths, multiple_of, scope or twin_filter.*Leave"
    ):
        gl.Pruner(gpt2, "soft_movement", 0.5, 10, twin_filter=threshold)
    assert hooks_of(gpt2) == 0


class Played(Rule):
    """A rule whose scores at each step were written down before."""

    def scores(self, now):
        return self.by_step[now.step - 1]


@pytest.mark.filterwarnings("ignore:No forward pass went through")  # the schedule alone
def test_returned_counts_the_neurons_that_came_back(gpt2):
    rule = Played()
    pruner = gl.Pruner(gpt2, rule, 0.5, 100, start=0.0, end=0.01, freeze=False)
    up = [torch.arange(float(N)) for _ in pruner.layers]
    half_up = [up[0], up[1].flip(0)]
    down = [-scores for scores in up]
    rule.by_step = [up, down, up, up, half_up]
    for returned in (0, N, 2 * N, 2 * N, 2.5 * N):
        pruner.step()
        assert pruner.returned == returned


def test_returned_is_the_sum_over_the_steps(gpt2, tokenizer):
    pruner = gl.Pruner(
        gpt2,
        "movement",
        0.5,
        30,
        scope="global",
        score_lr=0.5,
        gradient="gate",
        end=0.5,
        freeze=False,
    )
    masks = [torch.cat(pruner.masks)]
    optimizer = torch.optim.AdamW(gpt2.parameters(), lr=1e-2)
    for batch in shuffled(gpt2, tokenizer, make_examples(12), 4, 30, seed=0):
        loss_of(gpt2.train(), batch).backward()
        pruner.step()
        optimizer.step()
        optimizer.zero_grad()
        masks.append(torch.cat(pruner.masks))
    back = sum(int((after & ~before).sum()) for before, after in itertools.pairwise(masks))
    assert pruner.returned == back > 0


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo"])
def test_the_filter_follows_permuted_neurons_while_training(name, tokenizer, task):
    orders = [torch.randperm(N, generator=torch.Generator().manual_seed(s)) for s in (5, 6)]
    model = duplicated(name).double()
    ours, theirs = (
        pruned(m, tokenizer, task, "magnitude", steps=8, twin_filter=0.95, gram_every=2)
        for m in (model, permuted(model, orders))
    )
    assert same([m[o] for m, o in zip(ours.masks, orders, strict=True)], theirs.masks)
    assert pairs_kept_whole(ours.masks) == 0
