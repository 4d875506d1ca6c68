"""A certificate belongs to one schedule and to the weights it was shown with."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import bac
from bac.certificate import Certificate, file_hash


@pytest.fixture
def path(tmp_path):
    """A schedule's file."""
    bac.Denoising(schedule=bac.Schedule(4, {"a": (0, 2)})).save(tmp_path / "bac.json")
    return tmp_path / "bac.json"


@pytest.fixture
def certificate(path):
    return Certificate(
        *("shown", "assembly-v3", "BAC S=10 n=5", "DDPM-100", "success"),
        *(86, 0.0, -0.0495, 0.0495, 0.05, 0.95, 3_000_000),
        *(file_hash(path), "0123456789abcdef", "python -m eval.certify", "a CPU", "2026-11-22"),
    )


def test_it_says_what_was_shown(certificate):
    assert str(certificate) == (
        "certified: BAC S=10 n=5, success minus DDPM-100 +0.000 [-0.050, +0.050] "
        "(86 paired episodes of assembly-v3, margin 0.05, confidence 0.95)"
    )
    refuted = replace(certificate, verdict="refuted", difference=-0.1, low=-0.14, high=-0.06)
    assert str(refuted).startswith("REFUTED: BAC S=10 n=5, ")


def test_it_is_found_beside_its_schedule(certificate, path):
    assert Certificate.beside(path) is None
    certificate.save(path.with_name("certificate.json"))
    assert Certificate.beside(path) == certificate


def test_it_is_refused_beside_another_schedule(certificate, path):
    certificate.save(path.with_name("certificate.json"))
    bac.Denoising(schedule=bac.Schedule(4, {"a": (0, 3)})).save(path)
    with pytest.raises(
        bac.errors.MismatchError, match=r"bac.json of hash .* certify again: python -m eval.certify certify.file="
    ):
        Certificate.beside(path)


def test_it_is_refused_beside_other_weights(certificate, path):
    weights = path.with_name("model.safetensors")
    weights.write_bytes(b"trained")
    replace(certificate, weights_hash=file_hash(weights)).save(path.with_name("certificate.json"))
    assert Certificate.beside(path) is not None
    weights.write_bytes(b"trained on")
    with pytest.raises(bac.errors.MismatchError, match=r"model.safetensors of hash .* certify again"):
        Certificate.beside(path)


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"verdict": "perfect"}, {"n": None}, {"n": 0}, {"margin": 7.0}, {"confidence": -3.0}]
    + [{"low": -0.95}, {"low": 1.5}, {"verdict": "refuted"}],  # bounds that do not bear what it says
)
def test_what_is_no_certificate_is_refused(certificate, path, change):
    place = path.with_name("certificate.json")
    certificate.save(place)
    document = {key: value for key, value in {**json.loads(place.read_text()), **change}.items() if value is not None}
    place.write_text(json.dumps(document))
    with pytest.raises(bac.BacError, match=r"certif"):
        Certificate.beside(path)


def test_it_covers_exported_files_and_no_others(certificate, path):
    exported = path.with_name("policy.onnx")
    exported.write_bytes(b"exported")
    certificate.covering({"policy.onnx": file_hash(exported)}).save(path.with_name("certificate.json"))
    assert Certificate.beside(path).exports == f"policy.onnx:{file_hash(exported)}"
    exported.write_bytes(b"exported again")
    with pytest.raises(bac.errors.MismatchError, match=r"policy.onnx of hash .* certify again"):
        Certificate.beside(path)


def test_the_name_of_an_export_may_hold_blanks(certificate, path):
    names = "my policy.onnx", "the other one.pt2"
    for name in names:
        path.with_name(name).write_bytes(name.encode())
    hashes = {name: file_hash(path.with_name(name)) for name in names}
    certificate.covering(hashes).save(path.with_name("certificate.json"))
    assert Certificate.beside(path) is not None
    path.with_name(names[1]).write_bytes(b"")
    with pytest.raises(bac.errors.MismatchError, match=r"the other one.pt2 of hash"):
        Certificate.beside(path)


def test_one_of_an_older_version_covers_no_export(certificate, path):
    certificate.save(path.with_name("certificate.json"))
    document = json.loads(path.with_name("certificate.json").read_text())
    del document["exports"]
    path.with_name("certificate.json").write_text(json.dumps(document))
    assert Certificate.beside(path) == certificate


def test_a_command_that_writes_the_file_anew_keeps_its_certificate_elsewhere(certificate, path):
    following = pytest.importorskip("bac.cli.following", reason="the commands need typer", exc_type=ImportError)
    stands = path.with_name("certificate.json")
    certificate.save(stands)
    same, other = bac.load(path), bac.Denoising(schedule=bac.Schedule(4, {"a": (0, 3)}))
    assert following.write(same, path) == "" and Certificate.beside(path) == certificate
    assert following.write(other, path.with_name("other.json")) == ""  # it is not about that file
    assert Certificate.beside(path) == certificate
    said = following.write(other, path)
    kept = path.with_name("certificate.before.json")
    assert said == f"certificate.json is about what bac.json said before; it is kept as {kept}"
    assert Certificate.beside(path) is None and Certificate.load(kept) == certificate
    assert bac.load(path) == other
    replace(certificate, schedule_hash=file_hash(path)).save(stands)
    assert following.write(same, path).endswith("certificate.before-2.json")  # nothing is lost


def test_a_certificate_that_cannot_be_read_stays_where_it_is(path):
    following = pytest.importorskip("bac.cli.following", reason="the commands need typer", exc_type=ImportError)
    stands = path.with_name("certificate.json")
    stands.write_text("{")
    assert following.write(bac.Denoising(schedule=bac.Schedule(4, {"a": (0, 3)})), path) == ""
    assert stands.read_text() == "{"
