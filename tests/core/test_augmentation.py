"""Augmentations do what they say, and draw from (seed, epoch, clip) alone."""

import dataclasses

import numpy as np
import pytest
import torch

from sousa_bench.data.augmentation import Augmentation, Gain, Mixup, NoAugmentation, Noise, SpecAugment, TimeStretch
from sousa_bench.errors import ConfigError
from tests.cases import check_each

KEYS = np.array([11, 22, 33, 44, 55, 66])
OFF = {
    "gain": Gain(enabled=False),
    "noise": Noise(enabled=False),
    "time_stretch": TimeStretch(enabled=False),
    "spec_augment": SpecAugment(enabled=False),
    "mixup": Mixup(enabled=False),
}


def only(**parts):
    return Augmentation(**{**OFF, **parts})


def test_draws_do_not_depend_on_the_batch():
    augmentation = Augmentation()
    whole = augmentation.draw(1, 2, KEYS)
    part = augmentation.draw(1, 2, KEYS[[4, 1]])
    for field in dataclasses.fields(whole):
        np.testing.assert_array_equal(getattr(whole, field.name)[[4, 1]], getattr(part, field.name))


@pytest.mark.parametrize(("seed", "epoch"), [(2, 2), (1, 3)])
def test_draws_depend_on_seed_and_epoch(seed, epoch):
    augmentation = Augmentation()
    assert not np.array_equal(augmentation.draw(1, 2, KEYS).gain_db, augmentation.draw(seed, epoch, KEYS).gain_db)


def test_a_switch_leaves_the_other_draws_alone():
    both = Augmentation().draw(1, 0, KEYS)
    without = Augmentation(noise=Noise(enabled=False)).draw(1, 0, KEYS)
    np.testing.assert_array_equal(both.gain_db, without.gain_db)
    np.testing.assert_array_equal(both.rate, without.rate)
    assert np.isinf(without.snr_db).all()


def test_gain_is_in_decibels():
    augmentation = only(gain=Gain(probability=1.0, min_db=-6.0206, max_db=-6.0206))
    wave = torch.rand(6, 100) - 0.5
    out = augmentation.on_waveform(wave, torch.full((6,), 100), augmentation.draw(0, 0, KEYS), None)
    torch.testing.assert_close(out, wave / 2, rtol=1e-4, atol=1e-6)


def test_noise_has_the_asked_ratio_and_stays_inside_the_clip():
    augmentation = only(noise=Noise(probability=1.0, min_snr_db=20.0, max_snr_db=20.0))
    wave = torch.zeros(6, 32000)
    wave[:, :16000] = torch.sin(torch.arange(16000) * 0.1)
    out = augmentation.on_waveform(wave, torch.full((6,), 16000), augmentation.draw(0, 0, KEYS), None)
    noise = out - wave
    ratio = 10 * torch.log10(wave[:, :16000].square().mean(1) / noise[:, :16000].square().mean(1))
    torch.testing.assert_close(ratio, torch.full((6,), 20.0), atol=0.3, rtol=0)
    assert (noise[:, 16000:] == 0).all()
    assert not torch.equal(noise[0], noise[1])


def test_mixup_blends_with_the_lighter_weight():
    augmentation = only(mixup=Mixup(probability=1.0, alpha=1.0))
    draws = augmentation.draw(0, 0, KEYS)
    assert (draws.partner_weight <= 0.5).all()
    assert (draws.partner_weight > 0).all()
    out = augmentation.on_waveform(torch.ones(6, 10), torch.full((6,), 10), draws, torch.full((6, 10), -1.0))
    torch.testing.assert_close(out[:, 0], torch.as_tensor(1 - 2 * draws.partner_weight, dtype=torch.float32))


def test_mixup_takes_another_clip():
    """With whom is drawn from (seed, epoch, clip); a clip that is alone in its batch stays as it is."""
    augmentation = Augmentation(mixup=Mixup(probability=1.0, alpha=1.0))

    def check(clips):
        members = np.arange(clips) + 3
        met = set()
        for epoch in range(60):
            draws = augmentation.draw(7, epoch, members * 11)
            partners, weights = draws.partners(members, members)
            if clips == 1:
                assert not weights.any()
                continue
            assert (weights > 0).all()
            assert (partners != members).all()
            met |= set(zip(members.tolist(), partners.tolist(), strict=True))
            part, _ = draws.of(np.arange(1, clips, 2)).partners(
                members[1::2], members
            )  # of the second of two processes
            assert np.array_equal(part, partners[1::2])
        assert len(met) == clips * (clips - 1)  # each with each

    check_each([1, 2, 7], check)


def test_time_stretch_moves_onsets_and_pads():
    features = torch.zeros(1, 100, 3)
    features[0, 50] = 1.0
    mask = torch.zeros(1, 100, dtype=torch.bool)
    faster = only(time_stretch=TimeStretch(probability=1.0, min_rate=1.25, max_rate=1.25))
    out, out_mask = faster.on_features(features, mask, faster.draw(0, 0, KEYS[:1]), pad_value=-7.0)
    assert out[0, :, 0].argmax() == 40
    assert (out[0, 80:] == -7.0).all()
    assert out_mask[0, 80:].all()
    assert not out_mask[0, :80].any()


def test_spec_augment_hides_bands_of_bounded_width():
    spec = SpecAugment(time_masks=1, max_time_fraction=0.1, frequency_masks=1, max_frequency_fraction=0.25)
    augmentation = only(spec_augment=spec)
    keys = np.arange(200)
    features = torch.randn(200, 100, 40)
    out, _ = augmentation.on_features(features, None, augmentation.draw(0, 0, keys), 0.0)
    hidden = out != features
    rows, columns = hidden.all(dim=2).sum(1), hidden.all(dim=1).sum(1)
    assert rows.max() == 10
    assert columns.max() == 10
    assert rows.min() == 0


def test_off_changes_nothing():
    augmentation = NoAugmentation()
    draws = augmentation.draw(0, 0, KEYS)
    wave, features = torch.rand(6, 50), torch.rand(6, 20, 8)
    assert torch.equal(augmentation.on_waveform(wave, torch.full((6,), 50), draws, None), wave)
    assert torch.equal(augmentation.on_features(features, None, draws, 0.0)[0], features)
    assert not augmentation.changes_waveform


def test_impossible_values_are_refused():
    with pytest.raises(ConfigError, match=r"augmentation\.gain\.probability=2"):
        Augmentation(gain=Gain(probability=2))
