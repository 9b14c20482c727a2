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
from gumlab.course.check.notebook_00 import fraction_of_parameters, kept_count
from gumlab.course.check.notebook_01 import gated_activation, neuron_parameters, without_neuron
from gumlab.course.check.notebook_02 import apply_mask, remove_gated, remove_neurons
from gumlab.course.check.notebook_03 import mean_and_error, schedule_value, top_v
from gumlab.course.check.notebook_04 import neuron_magnitude, smallest_magnitude, stay_whole
from gumlab.course.check.notebook_05 import movement_update, straight_through, who_stays
from gumlab.course.check.notebook_06 import at_widths_of, global_top_v, with_floor
from gumlab.course.check.notebook_07 import cosine_of, rebuilt, share_unique
from gumlab.course.check.notebook_08 import behind_its_twin, gum_gradient, similarity_to_kept
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
from gumlab.course.check.notebook_13 import duel, my_score, paired_interval

__all__ = [
    "Exercise",
    "activation_scores",
    "adjusted",
    "apply_mask",
    "at_widths_of",
    "behind_its_twin",
    "block_kind",
    "claims",
    "cosine_of",
    "damage_avoided",
    "distillation_loss",
    "duel",
    "explained",
    "flip_bit",
    "fraction_of_parameters",
    "gated_activation",
    "gguf_bytes",
    "global_top_v",
    "greedy_scores",
    "gum_gradient",
    "heal",
    "honest_report",
    "kept_count",
    "largest_speedup",
    "mean_and_error",
    "movement_update",
    "my_score",
    "neuron_magnitude",
    "neuron_parameters",
    "obs_scores",
    "pad_fused",
    "pad_plain",
    "paired_difference",
    "paired_interval",
    "rebuilt",
    "refit_weights",
    "remove_gated",
    "remove_neurons",
    "ruling",
    "says",
    "schedule_value",
    "share_healed",
    "share_unique",
    "similarity_to_kept",
    "smallest_magnitude",
    "stay_whole",
    "straight_through",
    "target_rows",
    "taught_lesson",
    "top_v",
    "who_stays",
    "with_floor",
    "without_neuron",
]
