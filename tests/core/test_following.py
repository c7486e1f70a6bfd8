"""Following: two filters of one object, running averages, and what is said of it in the end."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from streampetr_core.following import expect, follow, number_known, seen_again, unpacked
from streampetr_core.heads import Predictions
from tests.core.followed import SPEEDS, expected_at, remembered, sight

DT = 0.5


def watch(places, label="car", errors=None, seed=0):
    """Follow one object through places (x, y) half a second apart; return centres and what is known, sight by sight.

    Sights err as `errors` (metres, one standard deviation) say.
    """
    noise = np.random.RandomState(seed).standard_normal((len(places), 2)) * (errors or 0.0)
    centres, known = sight([places[0] + noise[0]], label)
    history = [(centres, known)]
    for place, error in zip(places[1:], noise[1:], strict=True):
        expected = expect(remembered(centres, known), 1, SPEEDS)
        seen, about = sight([place + error], label)
        centres, known = seen_again(expected, about, seen)
        history.append((centres, known))
    return history


def driving(speed, count=12, start=(-15.0, 20.0)):
    return [np.array([start[0] + speed * DT * number, start[1]]) for number in range(count)]


def test_everything_known_survives_packing():
    _, known = sight([(3.0, 20.0), (0.0, 5.0)])
    packed = known.packed()
    assert packed.shape[-1] == number_known(known.class_logits.shape[-1])
    for name, value in vars(unpacked(packed)).items():
        assert torch.equal(value, getattr(known, name)), name


def test_what_stands_is_found_to_stand_and_its_errors_average_out():
    offs = {}
    for seed in range(8):
        centres, known = watch(driving(0.0), errors=0.4, seed=seed)[-1]
        assert known.moving.item() < 0.1
        offs[seed] = (centres[0, 0, :2] - torch.tensor([-15.0, 20.0])).norm().item()
    assert np.mean(list(offs.values())) < 0.35  # a single sight is off by 0.5 m on average


def test_what_drives_is_found_to_drive_and_how_fast():
    for seed in range(8):
        _, known = watch(driving(7.0), errors=0.3, seed=seed)[-1]
        assert known.moving.item() > 0.9
        torch.testing.assert_close(known.velocity[0, 0], torch.tensor([7.0, 0.0]), rtol=0, atol=1.2)


def test_the_place_of_what_drives_does_not_lag_behind():
    centres, _ = watch(driving(7.0))[-1]
    assert abs(centres[0, 0, 0].item() - driving(7.0)[-1][0]) < 0.3


def test_a_car_that_brakes_is_followed():
    stop = driving(7.0, 6) + driving(0.0, 8, start=(-15.0 + 7.0 * DT * 5, 20.0))
    centres, known = watch(stop)[-1]
    assert (known.moving * known.velocity).norm() < 0.5
    torch.testing.assert_close(centres[0, 0, :2], torch.tensor(stop[-1]).float(), rtol=0, atol=0.3)


def test_a_cone_does_not_start_to_drive_for_errors_of_place():
    for label, least, most in (("traffic_cone", 0.0, 0.3), ("car", 0.5, 9.0)):
        _, known = watch([np.array([0.0, 20.0]), np.array([2.0, 20.0])], label)[-1]
        assert least <= known.velocity.norm() < most, label


def test_errors_along_the_line_of_sight_count_less_than_across():
    expected = expected_at([(0.0, 30.0)])

    def drawn(x, y):
        seen, about = sight([(x, 30.0 + y)])
        centre, _ = seen_again(expected, about, seen)
        return (centre - expected.still_BR3)[0, 0, :2].norm().item()

    assert 0.0 < drawn(0.0, 0.6) < drawn(0.6, 0.0) < 0.6


def test_the_sooner_the_next_sight_the_less_an_error_of_place_becomes_velocity():
    centres, known = sight([(0.0, 20.0)])
    seen, about = sight([(0.3, 20.0)])
    after = [seen_again(expect(remembered(centres, known, age), 1, SPEEDS), about, seen)[1] for age in (0.083, 0.5)]
    assert (after[0].velocity * after[0].moving).norm() < 4.0
    assert after[0].speed[0, 0, 1, 1] > after[1].speed[0, 0, 1, 1]  # and the less is known of the velocity


def test_covariances_stay_covariances_however_long_an_object_is_followed():
    ahead = [np.array([3.6 + 0.3 * math.sin(number), 4.5]) for number in range(150)]
    for centres, known in watch(driving(5.0, 30), errors=0.3) + watch(ahead, "truck"):
        assert centres.isfinite().all()
        of_place = torch.cat([known.place, known.shared], dim=-1)
        of_velocity = torch.cat([known.shared.transpose(-1, -2), known.speed], dim=-1)
        for covariance in (known.still, torch.cat([of_place, of_velocity], dim=-2)):
            torch.testing.assert_close(covariance, covariance.transpose(-1, -2), rtol=1e-3, atol=1e-4)
            assert torch.linalg.eigvalsh(covariance.double()).min() > 0


def pass_by(step, count=10, shift_share=0.08):
    """Return how far off an object is (metres) that a vehicle passes while each image says it is farther than it is."""
    of_ego = [np.array([20.0 - step * number, 20.0]) for number in range(count)]
    centres, known = sight([of_ego[0] * (1 + shift_share)])
    for place in of_ego[1:]:
        expected = expect(remembered(centres - torch.tensor([step, 0.0, 0.0]), known), 1, SPEEDS)
        seen, about = sight([place * (1 + shift_share)])
        centres, known = seen_again(expected, about, seen)
    return (centres[0, 0, :2] - torch.tensor(of_ego[-1])).norm().item()


def test_what_is_seen_from_two_places_is_where_the_lines_of_sight_cross():
    assert pass_by(step=0.0) > 2.2  # from one place nothing tells that 28 m are 8 % too much
    assert pass_by(step=4.0) < 1.0


def test_the_covariance_of_a_place_turns_with_the_vehicle():
    centres, known = sight([(0.0, 20.0)])
    turned = expect(remembered(centres, known, turn=[[0.0, -1.0], [1.0, 0.0]]), 1, SPEEDS).known
    assert known.still[0, 0, 1, 1] > 4 * known.still[0, 0, 0, 0]
    torch.testing.assert_close(turned.still[0, 0].diagonal(), known.still[0, 0].diagonal().flip(0), rtol=0, atol=0.01)
    torch.testing.assert_close(turned.still[0, 0, 0, 1], torch.tensor(0.0), rtol=0, atol=1e-5)


def test_directions_turn_with_the_vehicle():
    centres, known = sight([(0.0, 20.0)], yaw=0.0)
    known = dataclasses.replace(known, velocity=torch.tensor([[[4.0, 0.0]]]), moving=torch.ones(1, 1, 1))
    turned = expect(remembered(centres, known, turn=[[0.0, -1.0], [1.0, 0.0]]), 1, SPEEDS)
    torch.testing.assert_close(turned.known.velocity, torch.tensor([[[0.0, 4.0]]]))
    torch.testing.assert_close(turned.known.heading, torch.tensor([[[0.0, 1.0]]]))
    torch.testing.assert_close(turned.moved_BR3, torch.tensor([[[0.0, 22.0, 0.5]]]))
    torch.testing.assert_close(turned.still_BR3, centres)


def test_one_doubtful_sight_does_not_change_class_size_and_heading():
    centres, known = watch(driving(0.0))[-1]
    expected = expect(remembered(centres, known), 1, SPEEDS)
    _, about = sight([(-15.0, 20.0)], "truck", yaw=math.pi)
    about = dataclasses.replace(about, log_size=about.log_size + 1.0)
    _, after = seen_again(expected, about, centres)
    assert after.class_logits.argmax() == known.class_logits.argmax()
    assert after.heading[0, 0, 0] > 0
    assert 0 < (after.log_size - known.log_size).max() < 0.5


def test_what_is_seen_again_is_surer_but_not_without_bounds():
    history = [known.class_logits.max().item() for _, known in watch(driving(0.0, 40))]
    assert history[0] < history[1] < history[5]
    assert history[-1] < history[0] + 1.0


def follow_all(places, scores, known=(), found=()):
    """Follow objects that a decoder of one layer finds at places; the last ones are `known` beforehand."""
    centres, first = sight(places)
    logits = first.class_logits + torch.logit(torch.tensor([scores]))[..., None] - first.class_logits.amax(-1, True)
    boxes = torch.cat([centres, first.log_size, first.heading.flip(-1), first.velocity], dim=-1)
    said = Predictions(logits[None], boxes[None], torch.zeros(1, len(places), 4))
    expected = expected_at(known or [(90.0, 90.0)])
    if not known:
        expected = dataclasses.replace(expected, exists_BR1=torch.zeros(1, 1, 1, dtype=torch.bool))
    found_BR1 = torch.tensor([[[flag] for flag in found or [False]]])
    return follow(said, expected, found_BR1, SPEEDS)[0]


def test_of_two_queries_on_one_object_the_surer_one_keeps_its_score():
    alone = follow_all([(0.0, 20.0), (9.0, 20.0)], [0.8, 0.6]).class_logits[-1].amax(dim=-1)
    beside = follow_all([(0.0, 20.0), (0.8, 20.0)], [0.8, 0.6]).class_logits[-1].amax(dim=-1)
    assert beside[0, 0] == alone[0, 0]
    assert beside[0, 1] < alone[0, 1] - 1.0


def test_a_score_falls_with_the_uncertainty_of_the_place():
    near, far = follow_all([(0.0, 8.0), (0.0, 45.0)], [0.6, 0.6]).class_logits[-1].amax(dim=-1)[0]
    assert far < near - 0.2


def test_a_known_object_that_no_token_speaks_of_is_where_it_is_expected():
    places, known = [(30.0, 0.0), (0.0, 21.0)], [(0.0, 20.0)]
    unseen = follow_all(places, [0.5, 0.5], known, [False])
    seen = follow_all(places, [0.5, 0.5], known, [True])
    torch.testing.assert_close(unseen.centre_BQ3[0, 1], torch.tensor([0.0, 20.0, 0.5]))
    assert 20.1 < seen.centre_BQ3[0, 1, 1] < 21.0


def test_a_new_object_is_where_the_decoder_says_and_stands_until_it_is_seen_to_move():
    new = follow_all([(30.0, 0.0), (0.0, 21.0)], [0.5, 0.5])
    torch.testing.assert_close(new.centre_BQ3[0], torch.tensor([[30.0, 0.0, 0.5], [0.0, 21.0, 0.5]]))
    assert new.velocity_BQ2.abs().max() == 0


@pytest.mark.parametrize(("speed", "most"), [(0.0, 0.0), (7.0, 9.0)])
def test_what_probably_stands_is_said_to_have_no_velocity(speed, most):
    centres, known = watch(driving(speed))[-1]
    expected = expect(remembered(centres, known), 1, SPEEDS)
    seen, about = sight([driving(speed, 13)[-1]])
    boxes = torch.cat([seen, about.log_size, about.heading.flip(-1), about.velocity], dim=-1)
    said = Predictions(about.class_logits[None], boxes[None], torch.zeros(1, 1, 4))
    told, _ = follow(said, expected, torch.ones(1, 1, 1, dtype=torch.bool), SPEEDS)
    assert most * 0.6 <= told.velocity_BQ2.norm() <= most
