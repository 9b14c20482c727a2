"""What a selected neuron is: its twin, and the texts it fires on most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gumlab.collecting import collect
from gumlab.errors import check_whole
from gumlab.feedforward import neurons
from gumlab.gram import cosine, nearest
from gumlab.tasks import Example
from gumlab.tasks.batches import batches, evaluating

TEXTS = 3  # that are shown of a neuron
AROUND = 8  # tokens that are shown on either side of the one at which it fires most


class Peaks(NamedTuple):
    """Where the neurons of a layer fire most in each text: h there, and the token's place.

    Both (texts, N).
    """

    h: Tensor
    place: Tensor


class Portraits:
    """Tell of single neurons; all is measured when it is first asked for.

    Parameters
    ----------
    model : Module
        The model, which is left as it is.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    examples : sequence of Example
        The texts: what neurons fire on is looked up in them.
    cosines : callable, optional
        Gives the cosine of every pair of a layer's neurons, (N, N), for the layer's number; by
        default they are measured on the examples.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        examples: Sequence[Example],
        cosines: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.examples = examples
        self.layers = neurons(model)
        self._cosines = cosines or self._measured_cosines
        self._twins: dict[int, tuple[Tensor, Tensor]] = {}  # by layer
        self._texts: list[list[int]] = []  # token ids
        self._peaks: list[Peaks] = []  # by layer

    def known(self, layer: int) -> bool:
        """Whether nothing is to be measured any more for neurons of this layer."""
        return layer in self._twins and bool(self._peaks)

    def width(self, layer: int) -> int:
        """How many neurons a layer has."""
        return self.layers[layer].width

    def check(self, layer: int, neuron: int) -> None:
        """Raise GumlabError where the model has no such neuron."""
        check_whole("layer", layer, 0, len(self.layers) - 1)
        check_whole("neuron", neuron, 0, self.width(layer) - 1)

    def twin(self, layer: int, neuron: int) -> tuple[int, float]:
        """The neuron of the layer with the largest |cosine|, and that cosine with its sign."""
        self.check(layer, neuron)
        if layer not in self._twins:
            self._twins[layer] = nearest(self._cosines(layer))
        cosines, twins = self._twins[layer]
        return int(twins[neuron]), float(cosines[neuron])

    def texts(self, layer: int, neuron: int) -> list[tuple[float, str]]:
        """The texts that a neuron fires on most.

        Returns
        -------
        list of (float, str)
            The strongest first: h where |h| is largest, and the words around, with the token where
            it is in «marks». Texts on which the neuron does not fire are left out.
        """
        self.check(layer, neuron)
        if not self._peaks:
            self._read()
        h, place = (of_all[:, neuron] for of_all in self._peaks[layer])
        strongest = h.abs().argsort(descending=True, stable=True)[:TEXTS].tolist()
        return [
            (float(h[text]), self._excerpt(self._texts[text], int(place[text])))
            for text in strongest
            if h[text] != 0
        ]

    def tell(self, layer: int, neuron: int) -> str:
        """Twin and texts as sentences, each text on a line of its own."""
        twin, its_cosine = self.twin(layer, neuron)
        texts = self.texts(layer, neuron)
        sentence = f"Its twin is neuron {twin}, cosine {its_cosine:+.2f}."
        count = len(self._texts)
        if not texts:
            return f"{sentence} It fires on none of {count} texts."
        lines = [f"h {h:+.2f}: {excerpt}" for h, excerpt in texts]
        return "\n".join(
            [f"{sentence} Of {count} texts it fires most on these, at the «marked» token:", *lines]
        )

    def _measured_cosines(self, layer: int) -> Tensor:
        block = self.layers[layer]
        (statistics,) = collect(self.model, self.tokenizer, self.examples, layers=[block])
        return cosine(statistics.gram)

    def _read(self) -> None:
        """Read the texts once: what every neuron does in each."""
        taken: list[Tensor] = []  # h of every layer, as a batch goes through them
        texts: list[list[int]] = []
        parts: list[list[Peaks]] = []  # by batch, then by layer
        hooks = [
            layer.proj.register_forward_pre_hook(lambda _, arguments: taken.append(arguments[0]))
            for layer in self.layers
        ]
        try:
            with evaluating(self.model), torch.no_grad():
                for batch in batches(self.model, self.tokenizer, self.examples, 16):
                    del batch["labels"]
                    self.model(**batch)
                    ids = batch["input_ids"]  # (B, T)
                    is_text = batch["attention_mask"].bool()
                    texts += [row[real].tolist() for row, real in zip(ids, is_text, strict=True)]
                    parts.append([_peaks(h.reshape(*ids.shape, -1), is_text) for h in taken])
                    taken.clear()
        finally:
            for hook in hooks:
                hook.remove()
        by_layer = zip(*parts, strict=True)
        self._texts = texts
        self._peaks = [
            Peaks(torch.cat([part.h for part in layer]), torch.cat([part.place for part in layer]))
            for layer in by_layer
        ]

    def _excerpt(self, ids: Sequence[int], place: int) -> str:
        """The words around a token, and the token in «marks»."""
        start = max(0, place - AROUND)
        end = place + 1 + AROUND
        before = self.tokenizer.decode(ids[start:place])
        until = self.tokenizer.decode(ids[start : place + 1])
        whole = self.tokenizer.decode(ids[start:end])
        token = until[len(before) :]
        space = token[: len(token) - len(token.lstrip())]
        marked = f"{before}{space}«{token.strip()}»{whole[len(until) :]}"
        left = "... " if start else ""
        right = " ..." if end < len(ids) else ""
        return left + " ".join(marked.split()) + right


def _peaks(h: Tensor, is_text: Tensor) -> Peaks:
    """Where each neuron is strongest in each sequence, padding left out; h: (B, T, N)."""
    h = h.float()
    size = h.abs().masked_fill(~is_text[..., None], -1)
    place = size.argmax(1)  # (B, N)
    return Peaks(h.gather(1, place[:, None]).squeeze(1).cpu(), place.cpu())
