"""The exercises' checks: `check.<name>(fn)` prints one line and returns a function that works.

The line says ok, or gives a hint for the mistake it recognises, or says "not attempted". The
function that comes back is the learner's own if it is right, else the reference, so that Run All
always ends. A mistake is recognised by its answers: each hint comes with a wrong implementation,
and a learner's function that answers every case as that one does has made that mistake.

One module per notebook. The learner's function, the check and the printed solution share one
name, and in the notebook the solution's fence begins with the comment `# solution: <name>`.
`check.claims({sentence: holds})` prints the verdicts of a notebook's last cell.
"""

from gumlab.course.check.judging import Exercise, claims
from gumlab.course.check.notebook_00 import (
    fraction_of_parameters,
    kept_count,
    looks_right,
    mask_from,
)
from gumlab.course.check.notebook_01 import (
    block_output,
    gated_activation,
    neuron_parameters,
    one_favourite,
    without_neuron,
)
from gumlab.course.check.notebook_02 import (
    apply_mask,
    flops_per_token,
    remove_gated,
    remove_neurons,
)
from gumlab.course.check.notebook_03 import (
    mean_and_interval,
    pruning_loop,
    random_scores,
    schedule_value,
    top_v,
)
from gumlab.course.check.notebook_04 import (
    neuron_magnitude,
    rescale,
    shared,
    smallest_magnitude,
    stay_whole,
    weight_lost,
)
from gumlab.course.check.notebook_05 import (
    adam_step,
    movement_step,
    score_gradient,
    soft_mask,
    straight_through,
)
from gumlab.course.check.notebook_06 import (
    at_widths_of,
    global_top_v,
    kept_by_layer,
    share_of_widths,
    standardised,
    with_floor,
)
from gumlab.course.check.notebook_07 import (
    cosine_table,
    fate,
    rebuilt_by_all,
    sensitivity_of,
    share_unique,
    take_over,
)
from gumlab.course.check.notebook_08 import (
    as_hard,
    behind_its_twin,
    gum_gradient,
    gum_slopes,
    similarity_to_kept,
    whole_by_chance,
)
from gumlab.course.check.notebook_09 import (
    distillation_loss,
    heal,
    share_healed,
    target_rows,
    taught_lesson,
)
from gumlab.course.check.notebook_10 import (
    activation_scores,
    greedy_scores,
    honest_report,
    obs_scores,
    refit_weights,
)
from gumlab.course.check.notebook_11 import (
    adjusted,
    damage_avoided,
    explained,
    paired_difference,
    ruling,
    says,
)
from gumlab.course.check.notebook_12 import (
    block_kind,
    flip_bit,
    gguf_bytes,
    largest_speedup,
    pad_fused,
    pad_plain,
)
from gumlab.course.check.notebook_13 import duel, leaderboard, my_score, my_variant, paired_interval

__all__ = [
    "Exercise",
    "activation_scores",
    "adam_step",
    "adjusted",
    "apply_mask",
    "as_hard",
    "at_widths_of",
    "behind_its_twin",
    "block_kind",
    "block_output",
    "claims",
    "cosine_table",
    "damage_avoided",
    "distillation_loss",
    "duel",
    "explained",
    "fate",
    "flip_bit",
    "flops_per_token",
    "fraction_of_parameters",
    "gated_activation",
    "gguf_bytes",
    "global_top_v",
    "greedy_scores",
    "gum_gradient",
    "gum_slopes",
    "heal",
    "honest_report",
    "kept_by_layer",
    "kept_count",
    "largest_speedup",
    "leaderboard",
    "looks_right",
    "mask_from",
    "mean_and_interval",
    "movement_step",
    "my_score",
    "my_variant",
    "neuron_magnitude",
    "neuron_parameters",
    "obs_scores",
    "one_favourite",
    "pad_fused",
    "pad_plain",
    "paired_difference",
    "paired_interval",
    "pruning_loop",
    "random_scores",
    "rebuilt_by_all",
    "refit_weights",
    "remove_gated",
    "remove_neurons",
    "rescale",
    "ruling",
    "says",
    "schedule_value",
    "score_gradient",
    "sensitivity_of",
    "share_healed",
    "share_of_widths",
    "share_unique",
    "shared",
    "similarity_to_kept",
    "smallest_magnitude",
    "soft_mask",
    "standardised",
    "stay_whole",
    "straight_through",
    "take_over",
    "target_rows",
    "taught_lesson",
    "top_v",
    "weight_lost",
    "whole_by_chance",
    "with_floor",
    "without_neuron",
]
