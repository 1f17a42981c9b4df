import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from pipeline.artifacts import Hop, Parity
from pipeline.report.build import Evidence, Subject, build_report, executed_figures
from pipeline.report.report import read_report, read_samples, report_json, report_schema_json, samples_bytes
from targets.target import Layer

SCHEMA = Path(__file__).parents[3] / "docs" / "report.schema.json"
CONTRACT = {
    "": "schema recipe version deployment verdict precision artifact accuracy parity latency memory context checks "
    "stages",
    "artifact": "path sha256 size_bytes",
    "accuracy": "metric teacher student quantized on_device num_samples",
    "parity": "torch_vs_onnx onnx_vs_device",
    "parity.torch_vs_onnx": "max_abs_diff top1_agreement",
    "latency": "scope threads num_samples p50_ms p90_ms p99_ms p99_ci_ms budget_ms protocol",
    "memory": "peak_bytes",
    "checks.0": "name measured interval limit verdict",
    "stages.0": "name seconds cached key",
}


@pytest.mark.parametrize(("path", "names"), CONTRACT.items())
def test_report_has_the_names_that_machines_read(report, path, names):
    table = json.loads(report_json(report))
    for step in filter(None, path.split(".")):
        table = table[int(step)] if step.isdigit() else table[step]
    assert set(names.split()) <= set(table)


def test_report_survives_its_json(report):
    assert read_report(report_json(report)) == report


def test_schema_file_is_the_reports_own():
    # When the report gains a field: edgeproof's report_schema_json() is what belongs into the file.
    assert SCHEMA.read_text(encoding="utf-8") == report_schema_json()


def test_report_fits_its_schema(report):
    jsonschema.Draft202012Validator(json.loads(report_schema_json())).validate(json.loads(report_json(report)))


def test_percentiles_are_order_statistics_of_the_raw_samples(report, profile):
    ordered = np.sort(profile.samples_ns) / 1e6
    assert report.latency.p50_ms == ordered[512 - 1]  # ceil(1024 * 0.5)
    assert report.latency.p99_ms == ordered[1014 - 1]  # ceil(1024 * 0.99) = ceil(1013.76)


def test_raw_samples_are_named_by_their_digest(report, profile, tmp_path):
    data = samples_bytes(profile.samples_ns)
    assert report.latency.samples.sha256 == sha256(data).hexdigest()
    path = tmp_path / report.latency.samples.path
    path.write_bytes(data)
    assert np.array_equal(read_samples(path), profile.samples_ns)
    assert len(data) < profile.samples_ns.nbytes / 2


def test_executed_operators_are_counted_by_type_and_precision():
    figures = executed_figures(
        [Layer("a", "Conv", "int8", 3.0), Layer("b", "Conv", "int8", 1.0), Layer("c", "Relu", "fp32", 1.0)]
    )
    assert (figures.int8_share, figures.int8_time_share) == (2 / 3, 0.8)
    assert [(kind.op_type, kind.count, kind.time_ms) for kind in figures.operators] == [
        ("Conv", 2, 4.0),
        ("Relu", 1, 1.0),
    ]


def test_runtimes_that_name_no_layers_have_no_int8_share():
    assert executed_figures([]).int8_share is None


SUBJECT = Subject(recipe="r", version="1", deployment="d", target="null", device="local", precision="int8")


def rebuild(evidence: Evidence) -> dict:
    return json.loads(
        report_json(build_report(SUBJECT, evidence, (), stages=(), created_at="2026-01-01T00:00:00+00:00"))
    )


def test_a_run_that_stopped_before_training_has_no_accuracy_and_no_parity(evidence):
    figures = rebuild(replace(evidence, accuracy=None, parity=None))
    assert (figures["accuracy"], figures["parity"]) == (None, None)
    assert figures["latency"]["budget_ms"] is None


def test_a_difference_that_is_not_finite_is_null(evidence):
    hop = Hop(float("nan"), 0.5, 10)
    assert rebuild(replace(evidence, parity=Parity(hop, hop)))["parity"]["torch_vs_onnx"]["max_abs_diff"] is None


def test_few_samples_have_no_interval_of_the_p99(evidence, profile):
    few = replace(profile, samples_ns=profile.samples_ns[:367], block_sizes=(367,))
    assert rebuild(replace(evidence, latency=few))["latency"]["p99_ci_ms"] is None


def test_without_any_budget_nothing_is_decided(evidence):
    assert rebuild(evidence)["verdict"] == "undecided"
