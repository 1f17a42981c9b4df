import numpy as np
import pytest

from pipeline.measuring.dependence import bulk_effect, design_effect, lag1_autocorrelation


def test_independent_samples_count_each():
    rng = np.random.default_rng(0)
    above = [rng.random(4096) < 0.01 for _ in range(24)]
    assert design_effect(above, None) == pytest.approx(1, abs=0.75)  # the largest of 16 estimates around 1
    assert design_effect(above, 0.025) >= design_effect(above, None)


def test_samples_that_come_in_tens_count_a_tenth():
    rng = np.random.default_rng(0)
    above = [np.repeat(rng.random(1000) < 0.1, 10) for _ in range(12)]
    assert design_effect(above, None) == pytest.approx(10, rel=0.3)


def test_processes_of_which_each_is_all_above_or_all_below_count_once():
    above = [np.full(1000, process % 3 == 0) for process in range(30)]
    worth = 30_000 / design_effect(above, None)
    assert worth == pytest.approx(30, rel=0.1)


def test_few_clusters_are_trusted_less_than_many():
    rare, frequent = ([np.arange(4096) % every < 8 for _ in range(12)] for every in (4096, 512))
    raised = [design_effect(above, 0.0125) / design_effect(above, None) for above in (rare, frequent)]
    assert raised[0] > 1.2 * raised[1]


def test_what_never_varies_depends_on_nothing():
    assert design_effect([np.zeros(100, bool)] * 4, 0.025) == 1
    assert bulk_effect([np.full(100, 7)] * 4) == 1


def test_autocorrelation_of_an_ar1_process_is_its_coefficient():
    rng = np.random.default_rng(0)
    samples = np.zeros(20_000)
    for i in range(1, samples.size):
        samples[i] = 0.6 * samples[i - 1] + rng.normal()
    assert lag1_autocorrelation(samples, (samples.size,)) == pytest.approx(0.6, abs=0.02)  # 3 / sqrt(n)


def test_a_difference_between_processes_is_not_autocorrelation():
    rng = np.random.default_rng(0)
    samples = np.concatenate([rng.normal(0, 1, 5000), rng.normal(100, 1, 5000)])
    assert lag1_autocorrelation(samples, (5000, 5000)) == pytest.approx(0, abs=0.03)


def test_constant_samples_have_no_autocorrelation():
    assert lag1_autocorrelation(np.full(10, 3), (10,)) is None
