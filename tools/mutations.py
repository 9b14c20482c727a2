"""Break the package on purpose, one line at a time: each breakage must fail the test it names.

    python tools/mutations.py             # all of them, and results/mutations.md
    python tools/mutations.py pruner.py   # only those in gumlab/pruner.py

Works on a copy of the package and its tests in a temporary folder; every named test must first
pass there unbroken. Writes results/mutations.md; exits with 1 where a breakage goes unnoticed, or
where its old text is no longer in its file exactly once. A few minutes: one test at a time.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("gumlab", "notebooks", "tests", "tools", "TEACHING.md", "pyproject.toml")
# A test that fails by one of these has met the writing of the breakage, not what it breaks.
WRONG_REASONS = ("ImportError", "ModuleNotFoundError", "NameError", "SyntaxError", "fixture")


class Mutation(NamedTuple):
    """`old` becomes `new` in gumlab/`file`; `test`, a test's id in tests/, must notice."""

    what: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = (
    Mutation(
        "the refit has no ridge",
        "gram.py",
        "raised.diagonal().add_(ridge * mean_energy + rounding * own)",
        "raised.diagonal().add_(0 * ridge * mean_energy)",
        "unit/test_gram.py::test_the_ridge_is_of_the_neurons_that_fire",
    ),
    Mutation(
        "dead neurons count in the ridge",
        "gram.py",
        "firing = (energy > 0).sum().clamp_min(1)",
        "firing = len(energy)",
        "unit/test_gram.py::test_the_ridge_is_of_the_neurons_that_fire",
    ),
    Mutation(
        "what the kept rebuild of a removed neuron counts as unrebuilt",
        "gram.py",
        "raised.diagonal() - rows.square().sum(0)",
        "raised.diagonal() - 0 * rows.square().sum(0)",
        "unit/test_gram.py::test_unrebuilt_is_the_residual_of_least_squares_on_the_other_kept[0]",
    ),
    Mutation(
        "a neuron is its own twin",
        "gram.py",
        "return alike.fill_diagonal_(False).nonzero()",
        "return alike.nonzero()",
        "integration/test_twin_filter.py::test_the_pairs_are_those_above_the_threshold_in_both_orders",
    ),
    Mutation(
        "padding tokens count in the Gram matrix",
        "collecting.py",
        "rows = h.flatten(0, -2)[real.flatten()].float()",
        "rows = h.flatten(0, -2).float()",
        "unit/test_inspection.py::test_the_gram_is_the_stacked_activations[gpt2]",
    ),
    Mutation(
        "padding tokens count in the running Gram sums",
        "collecting.py",
        "real = _attention(model, args, kwargs).flatten()",
        "real = (_attention(model, args, kwargs) >= 0).flatten()",
        "unit/test_gating.py::test_running_grams_are_exactly_the_real_tokens[gpt2]",
    ),
    Mutation(
        "sensitivity is of the batch, not of each sequence",
        "collecting.py",
        "return total.abs()",
        "return total.sum(0, keepdim=True).abs()",
        "unit/test_inspection.py::test_batch_size_and_padding_change_nothing[gpt2]",
    ),
    Mutation(
        "a layer is measured as if the ones before were whole",
        "collecting.py",
        "        if changing:\n",
        "        if changing and not rows:\n",
        "unit/test_collecting.py::test_each_layer_is_measured_behind_what_was_done_to_the_ones_before[gpt2]",
    ),
    Mutation(
        "of two micro-batches the second fades the first",
        "collecting.py",
        "self._fade = 1.0 if self._added_at == self.step else self.memory",
        "self._fade = self.memory",
        "integration/test_trainer.py::test_two_halves_accumulated_are_one_batch[gum]",
    ),
    Mutation(
        "Conv1D is read untransposed",
        "feedforward.py",
        "return weight.T if is_conv1d(module) else weight",
        "return weight",
        "unit/test_feedforward.py::test_conv1d_and_linear_show_the_same_neurons",
    ),
    Mutation(
        "the output projection is cut along the wrong axis",
        "feedforward.py",
        "int(not is_conv1d(self.proj)), index))",
        "int(is_conv1d(self.proj)), index))",
        "integration/test_invariants.py::test_1_3_4_ties_biases_and_odd_widths_change_nothing[gpt2-as-wide-as-the-model]",
    ),
    Mutation(
        "the biases of the first neurons stay, not of the kept",
        "feedforward.py",
        "places.append((module.bias, 0, rows))",
        "places.append((module.bias, 0, torch.arange(len(rows))))",
        "unit/test_removal.py::test_the_neurons_that_stay_keep_their_order_and_weights[gpt2]",
    ),
    Mutation(
        "the up projection of a gated block is not cut",
        "feedforward.py",
        "for module in self.fc:\n            parts",
        "for module in self.fc[:1]:\n            parts",
        "integration/test_invariants.py::test_1_masks_from_scores_shrink_to_what_they_gate[llama]",
    ),
    Mutation(
        "of a fused gate and up, up takes the gate's rows",
        "feedforward.py",
        "index + part * self.width",
        "index + 0 * self.width",
        "integration/test_invariants.py::test_1_masks_from_scores_shrink_to_what_they_gate[phi3]",
    ),
    Mutation(
        "padding neurons are copies, not zeros",
        "feedforward.py",
        "taken.index_fill_(axis, padding, 0)",
        "taken.index_fill_(axis, padding, 1)",
        "unit/test_feedforward.py::test_replacements_take_neurons_and_pad_with_zeros[gpt_neo]",
    ),
    Mutation(
        "removed neurons count in GUM's similarity",
        "scoring.py",
        "kept = inverse_norm * mask",
        "kept = inverse_norm",
        "unit/test_scoring.py::test_mean_similarity_is_the_double_loop",
    ),
    Mutation(
        "OBS leaves out how unique a neuron is",
        "scoring.py",
        "(price * unrebuilt(statistics.gram, ridge)).float()",
        "(price * statistics.energy).float()",
        "unit/test_data_scores.py::test_obs_is_the_error_of_deleting_and_refitting[gpt2]",
    ),
    Mutation(
        "Top_v keeps one neuron too many",
        "selection.py",
        "stable=True)[:count]] = True",
        "stable=True)[: count + 1]] = True",
        "unit/test_selection.py::test_fixed_widths_take_the_best_of_each_layer",
    ),
    Mutation(
        "ties are broken by keeping more",
        "selection.py",
        "mask[scores.argsort(descending=True, stable=True)[:count]] = True",
        "mask |= scores >= scores.sort(descending=True).values[count - 1]",
        "unit/test_selection.py::test_ties_go_to_the_first_position",
    ),
    Mutation(
        "a global budget is spent layer by layer",
        "selection.py",
        'if self.scope == "layer":',
        "if self.scope in SCOPES:",
        "unit/test_selection.py::test_exactly_round_keep_n_neurons_stay[0-global]",
    ),
    Mutation(
        "the schedule is one step late",
        "selection.py",
        "m = 1 - (step / steps - start)",
        "m = 1 - ((step - 1) / steps - start)",
        "unit/test_selection.py::test_the_schedule_by_hand",
    ),
    Mutation(
        "a floor comes on top of the total",
        "selection.py",
        "return apportion(wanted, total, self.least_widths",
        "return apportion(wanted, total + self.floor, self.least_widths",
        "unit/test_selection.py::test_exactly_round_keep_n_neurons_stay[1-global]",
    ),
    Mutation(
        "of two twins the higher-scored goes",
        "selection.py",
        "place[partner] < place[neuron]",
        "place[partner] > place[neuron]",
        "integration/test_twin_filter.py::test_of_two_twins_the_higher_stays_and_of_equal_ones_the_first",
    ),
    Mutation(
        "the straight-through gradient has the wrong sign",
        "gating.py",
        "product = h * grad",
        "product = -h * grad",
        "unit/test_gating.py::test_a_gate_passes_the_masked_gradient_to_h",
    ),
    Mutation(
        "GUM's penalty ignores the schedule",
        "rules.py",
        "return self.penalty * now.kept_now / now.keep",
        "return self.penalty",
        "unit/test_pruner.py::test_the_penalty_follows_the_schedule[1-gate]",
    ),
    Mutation(
        "the scores' rate neither warms up nor falls",
        "rules.py",
        "self._lr * warmed_up(now.step, now.steps)",
        "self._lr",
        "unit/test_pruner.py::test_the_rate_of_the_scores_warms_up_and_falls",
    ),
    Mutation(
        "scores move against their gradient",
        "rules.py",
        "index_copy(0, now.origin[i], gradient)",
        "index_copy(0, now.origin[i], -gradient)",
        "unit/test_pruner.py::test_adam_gets_the_gradient_of_a_mask[neuron]",
    ),
    Mutation(
        "an option that a method does not have is passed over",
        "rules.py",
        "        if name not in own:\n",
        "        if name not in own and not options:\n",
        "unit/test_rules.py::test_an_option_that_a_method_does_not_have_is_refused_by_name[-lamda_gum-]",
    ),
    Mutation(
        "a resumed run has forgotten Adam's moments",
        "rules.py",
        'self._optimizer.load_state_dict(state["optimizer"])',
        "pass",
        "unit/test_rules.py::test_a_state_goes_through_a_file_and_the_run_goes_on_as_it_was[movement-layer-gate]",
    ),
    Mutation(
        "masks change after they were frozen",
        "pruner.py",
        "if self.freeze and self.step_count >= self.end * self.steps:",
        "if not self.freeze:",
        "unit/test_pruner.py::test_freeze_holds_the_masks_from_end_on",
    ),
    Mutation(
        "with final=True a removed neuron may return",
        "pruner.py",
        "        if not self.final:\n            return list(scores)\n",
        "        if not self.final or scores:\n            return list(scores)\n",
        "integration/test_cut_runs.py::test_what_is_out_stays_out_and_then_leaves[1-global]",
    ),
    Mutation(
        "a state of other settings is taken",
        "pruner.py",
        "        if differ:\n",
        "        if differ and not self.keep:\n",
        "integration/test_trainer.py::test_a_checkpoint_of_another_pruner_says_so[gradient]",
    ),
    Mutation(
        "masks of a cut model are over neurons that are gone",
        "pruner.py",
        "return [gate.mask for gate in self.gates]",
        "return [gate.original_mask for gate in self.gates]",
        "integration/test_cut_runs.py::test_it_cuts_when_an_eighth_is_out_and_when_no_more_will_go",
    ),
    Mutation(
        "the kept neurons take over nothing",
        "removal.py",
        "target = off_diagonal @ removed_weights",
        "target = 0 * (off_diagonal @ removed_weights)",
        "unit/test_refit.py::test_the_refit_is_least_squares[True]",
    ),
    Mutation(
        "tied weights come apart in the copy",
        "removal.py",
        "    small_layers = neurons(small)\n",
        "    head = copy.deepcopy(small.get_output_embeddings())\n"
        "    small.set_output_embeddings(head)\n"
        "    small_layers = neurons(small)\n",
        "unit/test_removal.py::test_the_copy_shares_no_storage",
    ),
    Mutation(
        "an optimizer's moments stay as long as before the cut",
        "removal.py",
        "_cut_state(optimizer.state[parameter], shape, axis, rows)",
        "pass",
        "integration/test_cut_runs.py::test_the_optimizers_state_is_cut_with_the_weights[adamw-gpt2]",
    ),
    Mutation(
        "the config keeps the width from before the cut",
        "removal.py",
        "setattr(config, field, *widths)",
        "config",
        "unit/test_removal.py::test_sizes_and_config_tell_the_truth[gpt2]",
    ),
    Mutation(
        "the calibration of prune does not reach the scores",
        "removal.py",
        "score_layers(layers, method, model, calibration,",
        'score_layers(layers, method, model, Calibration(tokenizer, task, "train", 9, 9, 9),',
        "unit/test_rules.py::test_the_calibration_of_prune_is_that_of_scores_and_refit",
    ),
    Mutation(
        "Ctrl-C ends a command as if all were well",
        "cli/application.py",
        "raise typer.Exit(commands.STOPPED) from None",
        "raise typer.Exit(0) from None",
        "integration/test_cli.py::test_ctrl_c_is_one_sentence_and_130[evaluate]",
    ),
    Mutation(
        "NaN goes into the JSON of a command",
        "cli/printing.py",
        "parse_constant=lambda constant: None",
        "parse_constant=float",
        "integration/test_cli.py::test_json_has_no_nan",
    ),
    Mutation(
        "any numbers of the right shape are right",
        "course/check/comparison.py",
        "return torch.isclose(got.double(), wanted, RELATIVE, absolute, equal_nan=True)",
        "return torch.ones_like(wanted, dtype=torch.bool)",
        "unit/course/test_check.py::test_an_unknown_mistake_shows_the_first_case_that_differs",
    ),
    Mutation(
        "the reference passes for the learner's own",
        "course/check/judging.py",
        "return not self._is_reference(attempt) and self._judged(attempt) is None",
        "return self._judged(attempt) is None",
        "unit/course/test_check_fuzz.py::test_a_call_of_the_reference_is_seen_and_told[kept_count]",
    ),
    Mutation(
        "a changed input passes",
        "course/check/judging.py",
        "if verdict is None and change:",
        "if verdict is None and change and False:",
        "unit/course/test_check_fuzz.py::test_a_changed_input_is_told_by_its_name[top_v]",
    ),
    Mutation(
        "torch is slower after a check of a function that set the default device",
        "course/check/trial.py",
        "torch.set_default_device(None)",
        "torch.set_default_device(device)",
        "unit/course/test_check_fuzz.py"
        "::test_what_a_function_does_to_the_outside_stays_inside[top_v]",
    ),
    Mutation(
        "the page jumps while an explorer computes",
        "course/explore/base.py",
        'self._say("computing ...", waits=True)',
        'self._say("computing ...")',
        "unit/course/test_explore.py"
        "::test_while_a_slow_state_is_computed_the_sentence_keeps_its_room",
    ),
    Mutation(
        "students' copies cite what students do not have",
        "course/releasing.py",
        'cell["source"] = without_citations(cell["source"], repository)',
        'cell["source"] = cell["source"]',
        "notebooks/test_release.py::test_copies_cite_nothing_that_students_do_not_have[08_gum]",
    ),
    Mutation(
        "a Gram matrix off by more than its ridge is refused",
        "gram.py",
        "ROUNDINGS = (0.0, 1e-6, 1e-5, 1e-4)",
        "ROUNDINGS = (0.0,)",
        "unit/test_gram.py::test_neurons_with_nearly_all_of_the_energy_that_fire_together_do_not_stop_it",
    ),
    Mutation(
        "a planted pair is kept by chance too often",
        "course/planted.py",
        "expected += len(two) * kept * (kept - 1) / (width * (width - 1))",
        "expected += len(two) * kept * kept / (width * width)",
        "unit/course/test_planted.py::test_the_expected_number_is_the_mean_over_random_choices",
    ),
    Mutation(
        "a gate of a student's own lets everything through",
        "course/bench.py",
        "        return h * gate.mask\n",
        "        return h\n",
        "unit/course/test_bench.py::test_a_gate_with_your_own_way_back_hears_what_gumlabs_gate_hears",
    ),
    Mutation(
        "a cut of a student's own looks at one draw for all seeds",
        "course/bench.py",
        "pairs = zip(self.layers, self.look(seed), strict=True)",
        "pairs = zip(self.layers, self.look(0), strict=True)",
        "unit/course/test_bench.py::test_a_cut_comes_first_and_sees_the_seeds_texts",
    ),
    Mutation(
        "runs that had a teacher count among those without",
        "study/paper.py",
        'runs = pd.concat([study(), real_study()]).query("asked < 1 and not distilled")',
        'runs = pd.concat([study(), real_study()]).query("asked < 1")',
        "unit/study/test_paper.py::test_side_by_side_has_the_tiny_models_and_the_real_one",
    ),
    Mutation(
        "a neuron's dot is upside down for the pointer",
        "course/plots/places.py",
        "1 - box.y0 - box.height * inside[seen, 1]",
        "box.y0 + box.height * inside[seen, 1]",
        "unit/course/test_pointer.py::test_a_dot_is_where_the_picture_has_it",
    ),
    Mutation(
        "a click is answered twice",
        "course/explore/base.py",
        "self._selecting = True  # the controls move together: one answer for both",
        "self._selecting = False",
        "unit/course/test_pointer.py::test_a_click_is_one_answer_though_two_controls_move",
    ),
    Mutation(
        "a drawing's description is its title",
        "course/plots/drawings.py",
        '_tag("desc", escape(sentence))',
        '_tag("desc", escape(title))',
        "unit/course/test_drawings.py::test_a_drawing_is_well_formed_and_says_what_it_shows[whole]",
    ),
    Mutation(
        "a word that is gone is not marked",
        "course/explore/writing.py",
        'left.append(_mark("del", gone))',
        "left.append(html.escape(gone))",
        "unit/course/test_explore_sentence.py::test_words_of_one_text_alone_are_marked",
    ),
    Mutation(
        "the sentence explorer's refit is not done",
        "course/explore/writing.py",
        "self._latest = (cut, self._with(masks, refit))",
        "self._latest = (cut, self._with(masks, False))",
        "unit/course/test_explore_sentence.py::test_the_page_says_what_a_model_writes_that_was_really_cut",
    ),
    Mutation(
        "a refit of one's own gets the ridge of another matrix",
        "course/looks.py",
        "new = refit(gram, weights.double(), mask, self._ridge(gram))",
        "new = refit(gram, weights.double(), mask, self.ridge)",
        "unit/course/test_looks.py::test_a_refit_of_your_own_writes_the_kept_weights",
    ),
    Mutation(
        "the share healed is of the whole loss",
        "course/plots/healing.py",
        "(before - loss) / (before - dense)",
        "(before - loss) / before",
        "unit/course/test_explore_studies.py::test_healing_says_the_loss_and_the_share_of_the_damage",
    ),
    Mutation(
        "a claim that no longer holds is said to hold",
        "course/check/judging.py",
        "{'holds' if holds else 'no longer holds with your settings'}",
        "holds",
        "unit/course/test_check.py::test_a_claim_that_no_longer_holds_says_so_and_stops_nothing",
    ),
    Mutation(
        "a student's copy keeps the solutions",
        "course/releasing.py",
        'SOLUTION.sub("", source)',
        "source",
        "notebooks/test_release.py::test_only_the_fold_with_the_solution_goes",
    ),
    Mutation(
        "a number that no training makes is not named",
        "io/diagnosis.py",
        "LARGEST_PLAUSIBLE = 1e6",
        "LARGEST_PLAUSIBLE = 1e39",
        "unit/io/test_diagnosis.py::test_a_number_that_no_training_makes_is_named",
    ),
    Mutation(
        "doctor says that gumlab loads what it refuses",
        "io/diagnosis.py",
        "if is_as_saved and tokenizer is not None:",
        "if tokenizer is not None:",
        "integration/test_checkpoint_faults.py::test_one_flipped_bit_is_refused_by_load_and_named_by_doctor",
    ),
    Mutation(
        "weights that are missing are loaded as noise",
        "io/loading.py",
        "    if wrong:\n",
        "    if wrong and not folder:\n",
        "unit/io/test_saving.py::test_a_head_of_its_own_that_is_missing_is_noticed[True]",
    ),
    Mutation(
        "a changed file is not noticed",
        "io/record.py",
        "if present.get(name) != digest",
        "if name not in present",
        "integration/test_checkpoint_faults.py::test_one_flipped_bit_is_refused_by_load_and_named_by_doctor",
    ),
    Mutation(
        "every layer is recorded with the first one's width",
        "io/saving.py",
        "{str(i): {field: width} for",
        "{str(i): {field: widths[0]} for",
        "unit/io/test_saving.py::test_unequal_widths_are_recorded_layer_by_layer[gpt2]",
    ),
    Mutation(
        "a save is written where the old one stands",
        "io/saving.py",
        "fresh = new_folder_beside(target)",
        "fresh = target\n    fresh.mkdir(parents=True, exist_ok=True)",
        "unit/io/test_saving.py::test_a_save_that_fails_half_way_changes_nothing[True-RuntimeError]",
    ),
    Mutation(
        "half a state is read for a whole one",
        "io/states.py",
        "half.replace(path)",
        "path.write_bytes(half.read_bytes()[:-1])",
        "unit/test_rules.py::test_a_state_that_is_damaged_or_missing_says_so",
    ),
    Mutation(
        "a claim that holds is told as its opposite",
        "study/claims.py",
        '{"lower": AS_CLAIMED, "higher": OPPOSITE,',
        '{"lower": OPPOSITE, "higher": AS_CLAIMED,',
        "unit/study/test_paper.py::test_the_ledger_finds_what_was_put_in",
    ),
    Mutation(
        "the interval has a degree of freedom too many",
        "study/intervals.py",
        "freedom = count - 1",
        "freedom = count",
        "unit/study/test_paper.py::test_t_is_students",
    ),
    Mutation(
        "differences are not paired by seed",
        "study/intervals.py",
        "(by_method[one] - by_method[other]).dropna()",
        "(by_method[one] - by_method[other].mean()).dropna()",
        "unit/study/test_paper.py::test_differences_are_paired_by_seed",
    ),
    Mutation(
        "a pupil does not wait for its teacher",
        "study/runs.py",
        "            needs.append(cell.dense)",
        "            pass",
        "integration/test_study.py::test_a_pupil_waits_for_its_teacher_whatever_the_order",
    ),
    Mutation(
        "a row cut short stops the study",
        "study/runs.py",
        "except (FileNotFoundError, ValueError):",
        "except FileNotFoundError:",
        "integration/test_study.py::test_a_finished_run_is_not_done_again",
    ),
    Mutation(
        "the prompt is learned too",
        "tasks/batches.py",
        "labels[i, start:end] = input_ids[i, start:end]",
        "labels[i, :end] = input_ids[i, :end]",
        "unit/tasks/test_batches.py::test_only_the_target_and_the_end_of_text_are_labelled",
    ),
    Mutation(
        "a long prompt loses its end",
        "tasks/batches.py",
        "prompt = prompt[-room:]",
        "prompt = prompt[:room]",
        "unit/tasks/test_batches.py::test_long_prompts_lose_their_left_and_are_counted",
    ),
    Mutation(
        "generated SQL may do whatever it likes",
        "tasks/sql.py",
        "connection.set_authorizer(authorize)",
        "pass",
        "unit/tasks/test_tables_and_sql.py::test_the_authorizer_holds_without_the_check_of_the_text[delete]",
    ),
    Mutation(
        "the order of rows never counts",
        "tasks/sql.py",
        "arranged = list if is_ordered else Counter",
        "arranged = Counter",
        "unit/tasks/test_tables_and_sql.py::test_order_counts_only_where_the_gold_query_orders",
    ),
    Mutation(
        "a gated model is saved as if it were pruned",
        "io/saving.py",
        "    if removed:\n",
        "    if False:\n",
        "field/test_reports.py::TestWhatLeavesTheProcess"
        "::test_a_gated_model_is_not_saved_as_if_it_were_pruned",
    ),
    Mutation(
        "a pruner of another model trains it dense",
        "training.py",
        "if pruner is not None and pruner.model not in model.modules():",
        "if pruner is None:",
        "field/test_reports.py::TestPrunerAndModel::test_a_pruner_of_another_model_is_noticed",
    ),
    Mutation(
        "a pruner whose gates are gone goes on",
        "pruner.py",
        "if not self.removed and not all(gate.in_force for gate in self.gates):",
        "if self.removed and not all(gate.in_force for gate in self.gates):",
        "field/test_reports.py::TestPrunerAndModel::test_a_second_pruner_ends_the_first",
    ),
    Mutation(
        "a forward pass that escapes the gates is not noticed",
        "pruner.py",
        "if trained and escaped:",
        "if trained and not escaped:",
        "field/test_adapters.py::TestPruningWhileAnAdapterTrains"
        "::test_a_forward_pass_past_the_gates_is_noticed_though_the_weights_are_frozen",
    ),
    Mutation(
        "a snapshot is pruned along",
        "gating.py",
        "    def __getstate__(self) -> dict[str, Any]:",
        "    def __deepcopy__(self, memo: dict) -> Gate:\n        return self\n\n"
        "    def __getstate__(self) -> dict[str, Any]:",
        "field/test_reports.py::TestCopies::test_a_snapshot_stays_as_it_was",
    ),
    Mutation(
        "gradient checkpointing counts every layer twice",
        "collecting.py",
        "if self._rows is not None and i not in self._added:",
        "if self._rows is not None:",
        "field/test_reports.py::TestCheckpointing::test_the_masks_are_the_same[neuron-False]",
    ),
    Mutation(
        "scores are summed in the weights' own type",
        "scoring.py",
        "return weights.detach().to(torch.promote_types(weights.dtype, torch.float32))",
        "return weights.detach()",
        "field/test_reports.py::TestPrecision"
        "::test_bfloat16_weights_are_scored_as_the_same_numbers_in_float32[magnitude]",
    ),
    Mutation(
        "a frozen block trains after an evaluation",
        "tasks/batches.py",
        "            module.training = mode",
        "            module.training = modes[0][1]",
        "field/test_reports.py::TestWhatIsRestored::test_a_frozen_block_stays_in_eval_mode",
    ),
    Mutation(
        "layers that share their weights are cut",
        "feedforward.py",
        "    _check_owners(blocks)\n    _check_not_shared(model, blocks)\n",
        "",
        "field/test_reports.py::TestWeights::test_layers_that_share_weights_are_refused",
    ),
    Mutation(
        "activations that overflow are ranked in silence",
        "collecting.py",
        "_check_finite(self.gram, name)",
        "_check_finite(self.gram[:0], name)",
        "field/test_reports.py::TestActivations::test_so_is_a_square_that_overflows",
    ),
    Mutation(
        "greedy follows the checkpoint's penalties",
        "evaluation.py",
        "    model.generation_config = settings\n",
        "    own.update(**{**settings.to_diff_dict(), **own.to_diff_dict()})\n",
        "field/test_reports.py::TestSettingsThatLeak"
        "::test_greedy_is_greedy_whatever_the_checkpoint_says",
    ),
    Mutation(
        "a head that would be lost is lost in silence",
        "io/loading.py",
        "    if unexpected and (not wrong",
        "    if False and (not wrong",
        "field/test_reports.py::TestWrappersAndHeads::test_a_head_that_would_be_lost_is_named",
    ),
    Mutation(
        "the widths of a folder are only those that gumlab recorded",
        "io/loading.py",
        "    if found:\n        model, report",
        "    if found and recorded:\n        model, report",
        "field/test_loading.py::TestWidths::test_what_save_pretrained_wrote_loads[gpt2]",
    ),
    Mutation(
        "a record that disagrees with the weights is believed",
        "io/loading.py",
        "    if found and recorded:\n",
        "    if found and not folder:\n",
        "field/test_loading.py::TestWidths::test_a_record_that_is_not_as_the_weights_are",
    ),
    Mutation(
        "every safetensors file of a folder is read",
        "io/weights.py",
        "    return [folder / shard for shard in shards]\n",
        "    return sorted(folder.glob('*.safetensors'))\n",
        "field/test_loading.py::TestFiles::test_what_transformers_would_not_read_is_not_read[stray_beside_shards-True]",
    ),
    Mutation(
        "a weight that stands in two shards is read twice",
        "io/weights.py",
        "        if doubled:\n",
        "        if doubled and not paths:\n",
        "field/test_loading.py::TestFiles::test_what_is_missing_or_is_of_another_kind_is_named",
    ),
    Mutation(
        "a gated repository is told like any other",
        "io/hub.py",
        "isinstance(error, errors.GatedRepoError)",
        "isinstance(error, errors.DisabledRepoError)",
        "field/test_loading.py::TestTheHub::test_each_cause_has_its_sentence",
    ),
    Mutation(
        "the hub's weights are fetched before its config is looked at",
        "io/hub.py",
        "        check_config(settings, repr(name))\n",
        "",
        "field/test_loading.py::TestTheHub::test_refused_before_weights_are_downloaded",
    ),
    Mutation(
        "a dtype that nothing computes in is passed on",
        "io/loading.py",
        "    if dtype in LOADABLE:\n",
        "    if isinstance(dtype, torch.dtype):\n",
        "field/test_loading.py::TestDtypesAndDevices::test_a_dtype_that_cannot_be_is_told_before_anything_is_read",
    ),
    Mutation(
        "a quantised checkpoint is read",
        "io/configuration.py",
        "        if quantisation:\n",
        "        if quantisation is settings:\n",
        "field/test_loading.py::TestKindsOfModels::test_a_quantised_model_is_refused_before_its_weights_are_read",
    ),
    Mutation(
        "both towers of a model that sees are pruned",
        "feedforward.py",
        "if name.startswith(inside)]",
        "if name]",
        "field/test_wrappers.py::TestModelsThatSeeOrHear::test_only_the_language_part_is_pruned_and_the_logits_are_the_gated_ones[llava]",
    ),
    Mutation(
        "a subclass is built anew with its config alone",
        "io/saving.py",
        "if kind.__module__.startswith(LIBRARY):\n            return kind",
        "if kind is type(model):\n            return kind",
        "field/test_wrappers.py::TestClassesOfOnesOwn::test_a_constructor_that_asks_for_more_is_saved_and_loads[True]",
    ),
    Mutation(
        "unequal widths under another head are saved for nobody",
        "io/saving.py",
        "    if own_parts or not _is_language_model(model, kind):",
        "    if own_parts:",
        "field/test_wrappers.py::TestOtherHeads::test_of_unequal_widths_nothing_could_load_it[GPT2ForSequenceClassification]",
    ),
    Mutation(
        "a copy runs the original's replaced forward",
        "removal.py",
        "isinstance(forward, types.FunctionType)",
        "isinstance(forward, types.CodeType)",
        "field/test_wrappers.py::TestForwardsThatWereReplaced::test_a_plain_function_is_refused_where_a_copy_is_made[block]",
    ),
    Mutation(
        "gate and up that are one map are cut twice",
        "feedforward.py",
        "return list(once.values())",
        "return places",
        "field/test_wrappers.py::TestSharedWeights::test_gate_and_up_that_are_one_map_are_cut_once[True-False]",
    ),
    Mutation(
        "the cut weights of an offloaded layer are forgotten",
        "removal.py",
        "        put_back(*layer.linear_maps)\n",
        "",
        "unit/test_offloading.py",
    ),
    Mutation(
        "behind every offloaded block the gradient of the last one is taken",
        "collecting.py",
        "        slope = slopes[-1]\n",
        "",
        "unit/test_offloading.py",
    ),
    Mutation(
        "texts read with another option are taken for these",
        "tasks/_tokens.py",
        "how = [kind.__qualname__, tokenizer.split_special_tokens, special]",
        "how = [kind.__qualname__, special]",
        "unit/tasks/test_batches.py",
    ),
    Mutation(
        "another program's folder is overwritten",
        "io/saving.py",
        'not {"model_type", "architectures"}.isdisjoint(settings)',
        "settings",
        "field/test_wrappers.py::TestSavesThatWouldFailLate::test_so_is_another_program_s_folder_that_has_a_config_too",
    ),
    Mutation(
        "NaN becomes text",
        "tasks/_texts.py",
        "if is_number and math.isfinite(value):",
        "if is_number:",
        "field/test_own_data.py::TestCells::test_anything_else_is_refused_with_its_line_and_column",
    ),
    Mutation(
        "a truth value becomes text",
        "tasks/_texts.py",
        "isinstance(value, Real) and not isinstance(value, bool)",
        "isinstance(value, Real)",
        "field/test_own_data.py::TestCells::test_anything_else_is_refused_with_its_line_and_column",
    ),
    Mutation(
        "of two columns of one name one is lost",
        "tasks/_files.py",
        "count(name) > 1:",
        "count(name) > 2:",
        "field/test_own_data.py::TestFiles::test_a_csv_that_is_none_or_damaged_is_one_sentence",
    ),
    Mutation(
        "an unclosed quotation mark swallows rows",
        "tasks/_readers.py",
        "delimiter=separator, strict=True)",
        "delimiter=separator)",
        "field/test_own_data.py::TestFiles::test_a_csv_that_is_none_or_damaged_is_one_sentence",
    ),
    Mutation(
        "a long cell is refused",
        "tasks/_readers.py",
        "csv.field_size_limit(LONGEST_CELL)",
        "csv.field_size_limit()",
        "field/test_own_data.py::TestFiles::test_a_long_cell_is_read[140000]",
    ),
    Mutation(
        "of a key that stands twice the last counts",
        "tasks/_readers.py",
        "if len(found) < len(pairs):",
        "if len(found) < 0:",
        "field/test_own_data.py::TestFiles::test_so_is_json[a key twice]",
    ),
    Mutation(
        "test rows that are also in train are not told",
        "tasks/own.py",
        "        if seen:",
        "        if seen > len(examples):",
        "field/test_own_data.py::TestFolders::test_rows_of_train_in_test_are_counted_once",
    ),
    Mutation(
        "a task's name is running text",
        "tasks/own.py",
        "text not in (*BUILT_IN, *REAL)",
        "text",
        "field/test_own_data.py::TestInMemory::test_a_name_is_not_taken_for_a_text[restaurants]",
    ),
    Mutation(
        "prompt and target are tokenised apart",
        "tasks/_tokens.py",
        "if whole[: len(prompt)] == prompt:",
        "if not whole:",
        "field/test_own_data.py::TestSpecialTokens::test_a_space_before_every_text_does_not_part_prompt_and_target",
    ),
    Mutation(
        "a chat is tokenised as people read it",
        "tasks/_tokens.py",
        "    if not isinstance(prompt, Chat):\n        return prompt\n",
        "    if prompt:\n        return str(prompt)\n",
        "field/test_own_data.py::TestChats::test_ids_are_those_of_the_template",
    ),
    Mutation(
        "an adapter on the neurons is not seen",
        "feedforward.py",
        "    _check_adapters(modules)\n",
        "",
        "field/test_adapters.py::TestWhatTakesAnAdaptedModel::test_an_adapter_on_the_neurons_is_named",
    ),
    Mutation(
        "odd weights are taken for plain ones",
        "feedforward.py",
        "    _check_plain(name, maps)\n",
        "",
        "field/test_adapters.py::TestWeightsThatAreNoPlainFloats::test_they_are_named_before_anything_is_touched",
    ),
    Mutation(
        "float8 counts as something that can be summed",
        "feedforward.py",
        "torch.float64)  # what can be summed",
        "torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)",
        "field/test_adapters.py::TestWeightsThatAreNoPlainFloats::test_they_are_named_before_anything_is_touched",
    ),
    Mutation(
        "a model with an adapter is saved",
        "io/saving.py",
        "    if holds_adapters(model):",
        "    if False:",
        "field/test_adapters.py::TestWhatTakesAnAdaptedModel::test_save_says_how_an_adapted_model_is_saved",
    ),
    Mutation(
        "virtual tokens count as the text's",
        "tasks/batches.py",
        'or adds by itself."""\n    check_reads_as_given(model)\n',
        'or adds by itself."""\n',
        "field/test_adapters.py::TestWhatTakesAnAdaptedModel::test_virtual_tokens_are_refused_before_the_work",
    ),
    Mutation(
        "a number out of range passes",
        "errors.py",
        "if number is None or number < least or",
        "if number is None or",
        "field/test_arguments.py::TestWhatCannotBe::test_is_one_sentence_that_names_the_argument[evaluate-batch_size-whole]",
    ),
    Mutation(
        "Gram settings that nothing uses are ignored",
        "study/methods.py",
        "check_grams_used(rule, method.options)",
        "rule.begin",
        "field/test_arguments.py::TestOptionsThatNothingComesOf::test_gram_settings_where_no_sums_are_kept[gram_every-random]",
    ),
    Mutation(
        "a rule of your own goes on where the last run stopped",
        "study/methods.py",
        "rule = copy.deepcopy(method.name)",
        "rule = method.name",
        "field/test_arguments.py::test_a_rule_of_your_own_is_a_method_and_every_run_begins_afresh",
    ),
    Mutation(
        "a run changes the caller's random state",
        "study/methods.py",
        'torch.random.fork_rng([device] if device.type == "cuda" else [])',
        "torch.random.fork_rng(enabled=False)",
        "field/test_arguments.py::TestWhatIsLeftAsItWas::test_whatever_is_measured_and_twice_the_same",
    ),
    Mutation(
        "distilled is overwritten by the default of distil",
        "study/grid.py",
        'if "distil" in settings:\n        settings["distilled"] = settings.pop("distil")',
        'settings["distilled"] = settings.pop("distil", False)',
        "unit/study/test_identity.py::test_distilled_and_distil_are_one_setting",
    ),
    Mutation(
        "a key that changes nothing is ignored",
        "study/grid.py",
        "    if idle_everywhere:\n        raise",
        "    if False:\n        raise",
        "unit/study/test_identity.py::test_a_key_is_used_or_refused",
    ),
    Mutation(
        "a function is known by its address",
        "study/identity.py",
        "source = inspect.getsource(value)",
        "source = repr(value)",
        "unit/study/test_identity.py::test_the_names_are_those_of_another_process",
    ),
    Mutation(
        "another folder of data gives the old rows",
        "study/runs.py",
        "data = of_task(task)",
        "data = cell.task",
        "unit/study/test_identity.py::TestWhatARunIsMadeOf::test_another_folder_of_data_is_another_run",
    ),
    Mutation(
        "the command line does not check a number",
        "cli/options.py",
        "check_whole(_name(option), number, least)",
        "_name(option)",
        "field/test_arguments.py::TestCommandLine::test_a_value_out_of_range",
    ),
    Mutation(
        "a compiled and used model does not see the gates",
        "gating.py",
        "torch.compiler.reset()",
        "pass",
        "field/test_runs.py::TestCompiled::test_gates_put_on_and_taken_off_are_seen",
    ),
    Mutation(
        "Gram sums that nobody fed are ranked by",
        "pruner.py",
        "self._check_heard()",
        "pass",
        "field/test_runs.py::TestTheSumsAreFed::test_not_in_eval_mode",
    ),
    Mutation(
        "dropout does not follow the seed",
        "training.py",
        "torch.manual_seed(seed)",
        "pass",
        "field/test_runs.py::TestSeeds::test_a_seed_gives_the_run_again_whatever_was_drawn_before",
    ),
    Mutation(
        "a gradient that was left over counts",
        "training.py",
        "optimizer.zero_grad(set_to_none=True)  # what an earlier backward pass left",
        "pass",
        "field/test_runs.py::TestSeeds::test_gradients_that_were_left_over_have_no_say",
    ),
    Mutation(
        "a Trainer's checkpoint passes for the pruned model",
        "trainer.py",
        '(folder / NOTE_FILE).write_text(note, encoding="utf-8")',
        "pass",
        "field/test_runs.py::TestTrainerCheckpoints::test_it_says_so_and_has_the_masks",
    ),
    Mutation(
        "rotary rows of a GGUF file stay interleaved",
        "io/gguf_loading.py",
        "return by_pair.transpose(1, 2).reshape(weight.shape)",
        "return by_pair.reshape(weight.shape)",
        "unit/io/test_gguf.py::test_unequal_widths_are_read_layer_by_layer",
    ),
    Mutation(
        "numbers of a GGUF file are lost",
        "io/gguf_loading.py",
        "if stored != built:",
        "if stored < built:",
        "unit/io/test_gguf.py::test_what_cannot_be_opened_rightly_is_refused_in_its_own_words",
    ),
    Mutation(
        "a wheel with other content is taken",
        "io/bases.py",
        "if found != expected:",
        "if not found:",
        "integration/test_fetch.py::test_the_model_in_the_wheel_is_checked_too",
    ),
    Mutation(
        "an error costs the same in every direction",
        "collecting.py",
        "    return [symmetric_root(f) for f in fisher]",
        "    return [f.double().diagonal().mean().sqrt() for f in fisher]",
        "unit/test_currency.py::test_the_currencies_are_the_root_its_mean_and_nothing",
    ),
    Mutation(
        "the currency is forgotten on the way to the score",
        "scoring.py",
        "            seen.currency = price\n",
        "",
        "unit/test_currency.py::test_one_number_a_layer_scales_its_scores_and_keeps_their_order",
    ),
    Mutation(
        "the products follow half of a block's removals",
        "gram.py",
        "(self.p - self.u @ self.k / 2).T, alpha=-1)",
        "self.p.T, alpha=-1)",
        "unit/test_data_scores.py::test_greedy_obs_is_the_dense_algorithm[0.0001-150]",
    ),
    Mutation(
        "a dent in a damage curve hides what lies behind",
        "allocation.py",
        "while len(corners) > 1 and",
        "while False and",
        "unit/test_allocation.py::test_a_dent_in_a_curve_does_not_hide_what_lies_behind_it",
    ),
    Mutation(
        "running text is read to its end",
        "collecting.py",
        "rows = rows[: max(1, self.tokens // len(block))]",
        "rows = list(rows)",
        "unit/test_currency.py::test_running_text_is_read_up_to_a_number_of_tokens",
    ),
    Mutation(
        "ours and the paper's number change places in the difference",
        "study/reproduction.py",
        'row[name] - row[f"{name}, paper"]',
        'row[f"{name}, paper"] - row[name]',
        "integration/test_reproduce.py::test_differences_are_ours_less_the_papers_by_seed",
    ),
    Mutation(
        "an epoch leaves out its last batch",
        "study/experiments.py",
        "return epochs * math.ceil(count / batch_size), count",
        "return epochs * (count // batch_size), count",
        "integration/test_reproduce.py::test_steps_are_epochs_times_the_batches_of_one",
    ),
    Mutation(
        "the first token is counted where it was to be left out",
        "collecting.py",
        "real[:, 0] = False",
        "real[:, -1] = False",
        "unit/test_robust.py::test_without_first_every_sequence_is_a_token_shorter",
    ),
    Mutation(
        "winsorised sums clip nothing",
        "collecting.py",
        "clipped = self.fired // CLIPPED",
        "clipped = 0 * self.fired",
        "unit/test_robust.py::test_a_robust_gram_is_that_of_the_matrix_so_changed",
    ),
    Mutation(
        "a neuron that never changes counts as alive in centred sums",
        "collecting.py",
        "statistics.forget(statistics.energy <= STILL",
        "statistics.forget(statistics.energy < 0 * STILL",
        "unit/test_robust.py::test_a_neuron_that_never_changes_is_dead_once_centred",
    ),
    Mutation(
        "the energy of second tokens stands for that of first ones",
        "collecting.py",
        "self.first_energy += size[:, 0].square().sum()",
        "self.first_energy += size[:, 1].square().sum()",
        "unit/test_robust.py::test_shares_of_the_energy_by_hand",
    ),
    Mutation(
        "a layer of which exactly half rests on a handful is called concentrated",
        "inspection.py",
        "if max(of) > HANDFUL",
        "if max(of) >= HANDFUL",
        "unit/test_robust.py::test_so_does_one_that_rests_on_few_tokens",
    ),
    Mutation(
        "the recommended recipe prices errors where layers do not compete",
        "removal.py",
        'if recipe["scope"] != "global" or widths is not None:',
        "if False:",
        "unit/test_removal.py::test_the_recommended_recipe_prices_errors_where_layers_compete",
    ),
    Mutation(
        "a block asked for is not cut",
        "tasks/batches.py",
        "rows = encode(tokenizer, examples, checked_block(block, examples, context))",
        "rows = encode(tokenizer, examples, context)",
        "unit/tasks/test_batches.py"
        "::test_running_text_is_trained_on_in_blocks_of_the_length_asked_for",
    ),
    Mutation(
        "a study forgets how many tokens were asked for",
        "study/grid.py",
        "if settings[added] == getattr(Cell, added):",
        "if True:",
        "integration/test_reproduce.py::test_what_running_text_is_measured_on_is_a_setting_of_a_run",
    ),
    Mutation(
        "the ledger counts all bases in each kind",
        "study/paper.py",
        'runs = measured[measured["model"].isin(models)]',
        "runs = measured",
        "unit/study/test_paper.py::test_the_ledger_tells_kinds_of_bases_apart",
    ),
    Mutation(
        "code builds one matrix where gate and up share it",
        "io/modeling_pruned.py",
        '_resize(model, fc, "out", parts * width)',
        '_resize(model, fc, "out", width)',
        "unit/io/test_with_code.py::TestTheModule::test_it_builds_every_kind_of_block",
    ),
    Mutation(
        "code takes a Conv1D for a Linear",
        "io/modeling_pruned.py",
        'return int((side == "in") != isinstance(linear, Conv1D))',
        'return int(side == "in")',
        "unit/io/test_with_code.py::TestTheModule::test_it_builds_every_kind_of_block",
    ),
    Mutation(
        "a folder names code that is not in it",
        "io/saving.py",
        "for entry in OF_CODE:",
        "for entry in ():",
        "unit/io/test_with_code.py::TestSavingAgain::test_code_that_is_not_ours_is_not_named_either",
    ),
    Mutation(
        "the doctor believes any module",
        "io/diagnosis.py",
        "if path.read_bytes() != CODE.read_bytes():",
        "if False:",
        "unit/io/test_with_code.py::TestGumlabRunsNone::test_a_module_that_would_do_harm_is_not_run",
    ),
    Mutation(
        "the record of widths for code stays as it was after a cut",
        "removal.py",
        'by_code | {"widths": [layer.width for layer in layers]}',
        "by_code",
        "unit/io/test_with_code.py::TestSavingAgain::test_what_was_pruned_further_is_saved_by_transformers_itself",
    ),
    Mutation(
        "the hub's copy lacks the module",
        "io/hub.py",
        " or name == CODE_FILE",
        "",
        "field/test_loading.py::TestTheHub::test_what_gumlab_saved_is_fetched_whole_and_verified",
    ),
    Mutation(
        "rotary rows go out in halves",
        "io/gguf_export.py",
        "return halves.transpose(1, 2).reshape(weight.shape)",
        "return halves.reshape(weight.shape)",
        "unit/io/test_gguf_export.py::test_the_file_holds_the_model_bit_for_bit",
    ),
    Mutation(
        "a sliding window is overlooked",
        "io/gguf_export.py",
        "and window < context:",
        "and window < 0:",
        "unit/io/test_gguf_export.py::test_what_llama_cpp_would_not_compute_is_refused_before_the_file",
    ),
    Mutation(
        "an export is written where the old file stands",
        "io/gguf_export.py",
        "_write(fresh / target.name, family.name, settings, weights, kinds)",
        "_write(target, family.name, settings, weights, kinds)",
        "unit/io/test_gguf_export.py::test_the_file_appears_whole_or_not_at_all",
    ),
    Mutation(
        "every tokenizer passes for GPT-2's",
        "io/gguf_vocabulary.py",
        "rule = RULES.get((steps, whole_words))",
        'rule = "gpt-2"',
        "unit/io/test_gguf_export.py::test_the_rule_that_splits_words_is_known_by_what_it_does",
    ),
    Mutation(
        "words that are tokens are cut",
        "io/gguf_loading.py",
        "ignore_merges = rule in WHOLE_WORDS",
        "ignore_merges = False",
        "unit/io/test_gguf_export.py::test_the_rule_that_splits_words_is_known_by_what_it_does",
    ),
    Mutation(
        "a run in a file goes on without the optimizer's moments",
        "resuming.py",
        '        run.optimizer.load_state_dict(state["optimizer"])\n',
        "",
        "integration/test_resuming.py::test_a_run_that_cuts_ends_as_one_never_stopped",
    ),
    Mutation(
        "in several processes gradients of layers that are cut are added up, not averaged",
        "ranks.py",
        "    averaged([weight.grad])",
        "    averaged([weight.grad])[0].mul_(count())",
        "integration/test_ranks.py::test_two_processes_keep_what_one_keeps",
    ),
    Mutation(
        "a loss with its graph counts as a number",
        "course/check/comparison.py",
        'kind_of(got.dtype) == "float" and not got.requires_grad',
        'kind_of(got.dtype) == "float"',
        "unit/course/test_check.py",
    ),
    Mutation(
        "a loss that no gradient flows through is right",
        "course/check/comparison.py",
        "(got.requires_grad or not wanted.requires_grad)",
        "True",
        "unit/course/test_notebook_09.py"
        "::test_a_loss_without_a_gradient_for_the_student_is_no_right_answer",
    ),
    Mutation(
        "a table shows NaN",
        "course/tables.py",
        "na_rep=NOTHING",
        'na_rep="NaN"',
        "unit/course/test_tables.py",
    ),
    Mutation(
        "of drawn neurons each counts its cosine with itself",
        "collecting.py",
        "sums[drawn] -= (norm[drawn] > 0).float()",
        "sums[drawn] -= 0 * norm[drawn]",
        "unit/test_gating.py::test_likeness_with_all_kept_neurons_is_the_mean_similarity",
    ),
    Mutation(
        "of a gated block's two maps the one that is called last counts alone",
        "collecting.py",
        "self._z[module] = [z]",
        "self._z = {module: [z]}",
        "field/test_read_closely.py::TestModels::test_up_may_be_called_before_gate",
    ),
    Mutation(
        "beside widths the schedule goes by another keep",
        "selection.py",
        'object.__setattr__(self, "keep", sum(self.widths) / sum(self.sizes))',
        'object.__setattr__(self, "keep", self.keep)',
        "field/test_read_closely.py::TestWidths::test_keep_is_the_fraction_that_they_are",
    ),
    Mutation(
        "a rule serves two pruners",
        "pruner.py",
        "if rules.run_of(self.rule) != self._run:",
        "if False:",
        "field/test_read_closely.py::TestARuleOfOnesOwn"
        "::test_in_two_pruners_is_refused_at_the_first_ones_next_step",
    ),
    Mutation(
        "a constant that a criterion reads is no part of its run",
        "study/identity.py",
        'parts = {"reads": reads(value)}',
        "parts = {}",
        "unit/study/test_identity.py",
    ),
    Mutation(
        "the garbage collector stays off after an import",
        "importing.py",
        "        gc.enable()\n",
        "",
        "unit/test_importing.py::test_the_collector_rests_and_goes_on",
    ),
    Mutation(
        "what is imported is never collected",
        "importing.py",
        "        gc.unfreeze()  # and then an old one\n",
        "",
        "unit/test_importing.py::test_what_is_made_meanwhile_counts_as_old_and_is_collected_all_the_same",
    ),
    Mutation(
        "a generated split is written at every reading",
        "tasks/__init__.py",
        "            setattr(self, name, examples)\n",
        "",
        "unit/tasks/test_generated.py::test_a_split_is_written_when_it_is_first_read",
    ),
    Mutation(
        "what a run was made with counts as a setting of it",
        "study/rows.py",
        "        if column not in (*by, *outcomes)\n",
        "        if column not in by\n",
        "unit/study/test_intervals.py",
    ),
    Mutation(
        "every layer is looked at twice",
        "removal.py",
        "if refit and not sequential and not in_place and _one_look_does(model, method, budget):",
        "if False:",
        "unit/test_refit.py::test_a_layer_is_looked_at_no_more_often_than_it_must_be",
    ),
    Mutation(
        "one look does for a global budget too",
        "removal.py",
        'shares_are_fixed = budget.scope == "layer" or budget.widths is not None',
        "shares_are_fixed = True",
        "unit/test_refit.py::test_a_global_budget_is_shared_out_by_all_scores",
    ),
)


def mutated(one: Mutation, root: Path = ROOT) -> str:
    """The broken text of the mutation's file; ValueError where its old text is not there once."""
    text = (root / "gumlab" / one.file).read_text(encoding="utf-8")
    if text.count(one.old) != 1:
        times = text.count(one.old)
        raise ValueError(f"gumlab/{one.file} holds {one.old!r} {times} times, expected once")
    return text.replace(one.old, one.new)


def outcomes(folder: Path, tests: Sequence[str]) -> dict[str, str]:
    """By test: "" where it passed, else the first line of why not. One pytest, in the copy."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    child = os.fork()  # gumlab is imported afresh, and what it stands on is here already
    if not child:
        code = 1
        try:
            os.chdir(folder)
            sys.path.insert(0, str(folder))
            sys.stdout = sys.stderr = open("log.txt", "w", encoding="utf-8")  # noqa: SIM115
            options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
            options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # for what is here
            code = pytest.main(options + [f"tests/{test}" for test in tests])
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    os.waitpid(child, 0)
    found = {}
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        where = case.get("classname").removeprefix("tests.").split(".")
        classes = [where.pop()] if where[-1][0].isupper() else []
        name = "::".join(["/".join(where) + ".py", *classes, case.get("name")])
        trouble = [part for part in case if part.tag in ("failure", "error", "skipped")]
        lines = [part.get("message", "").splitlines() or [part.tag] for part in trouble]
        found[name] = f"{trouble[0].tag}: {lines[0][0]}" if trouble else ""
    return {test: of_all_cases(test, found) for test in tests}


def of_all_cases(test: str, found: Mapping[str, str]) -> str:
    """How a test ended; of one that names no case, and of a file, its first failure, if any."""
    inside = (f"{test}[", f"{test}::")
    cases = [why for name, why in found.items() if name == test or name.startswith(inside)]
    if not cases:
        return "not run"
    return next((why for why in cases if why.startswith(("failure", "error"))), min(cases))


def caught(outcome: str) -> bool:
    """Whether a test failed, and by what it tests."""
    return outcome.startswith("failure") and not any(w in outcome for w in WRONG_REASONS)


def main(wanted: Sequence[str]) -> int:
    import torch  # noqa: F401, for all the children
    from transformers import GPT2LMHeadModel, LlamaForCausalLM  # noqa: F401

    chosen = [one for one in MUTATIONS if not wanted or one.file in wanted]
    if not chosen:
        files = sorted({one.file for one in MUTATIONS})
        print(f"No breakage is in {', '.join(wanted)}. There are some in {', '.join(files)}.")
        return 1
    sys.dont_write_bytecode = True  # a breakage may be as old as what it breaks
    survivors = 0
    rows = []
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for part in NEEDED:
            take = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            take(ROOT / part, copy / part)
        tests = list(dict.fromkeys(one.test for one in chosen))
        print(f"First {len(tests)} tests unbroken ...", flush=True)
        failed = {test: why for test, why in outcomes(copy, tests).items() if why}
        for test, why in failed.items():
            print(f"does not pass unbroken: {test}: {why.splitlines()[0]}")
        if failed:
            print((copy / "log.txt").read_text(encoding="utf-8")[-2000:])
            return 1
        for number, one in enumerate(chosen, 1):
            outcome = outcome_of(one, copy)
            is_caught = caught(outcome)
            survivors += not is_caught
            verdict = "caught" if is_caught else f"SURVIVED ({outcome or 'passed'})"
            place = f"[{number}/{len(chosen)}] {one.file}"
            print(f"{place}: {verdict}: {one.what}. {outcome[:120]}", flush=True)
            by = f"`{one.test}`" if is_caught else f"**not caught** by `{one.test}`"
            rows.append({"breakage": one.what, "where": f"`gumlab/{one.file}`", "caught by": by})
    if not wanted:
        write_report(rows, survivors)
    return int(survivors > 0)


def outcome_of(one: Mutation, folder: Path) -> str:
    """How the breakage's test ends while the copy in `folder` is broken."""
    path = folder / "gumlab" / one.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(mutated(one), encoding="utf-8")
    try:
        return outcomes(folder, [one.test])[one.test]
    finally:
        path.write_text(whole, encoding="utf-8")


def write_report(rows: list[dict[str, str]], survivors: int) -> None:
    """results/mutations.md: every breakage, and what caught it."""
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    from harness import made_by, markdown

    head = f"# Breakages that the tests notice\n\n{made_by('python tools/mutations.py')} "
    head += f"{len(rows) - survivors} of {len(rows)} caught, each by one test that passes unbroken."
    text = f"{head}\n\n{markdown(rows)}"
    (ROOT / "results" / "mutations.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
