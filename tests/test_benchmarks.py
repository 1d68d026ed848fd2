"""Every benchmark runs with --quick, on the cells that ship with scld, and prints its tables.

They need the extra `bench`: pip install -c constraints.txt -e '.[bench]'.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import scld

pytestmark = pytest.mark.benchmarks

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
SHARED = {  # modules that are no scripts
    *("common", "other_methods", "version_worker"),
    *("peer_protocols", "peer_rare", "peer_runs"),
    *("designed_cells", "designed_parts"),
    *("hostile_inputs", "hostile_worker"),
}
OUTPUT = {  # script -> parts of its output
    "ablation": ["default", "post-guidance", "effect_slope", "baseline"],
    "audit": ["likelihood", "same donors", "Fidelity: C2ST", "a quarter of the cells", "made up"],
    "combinations": ["own controls", "baseline", "control + mean shift", "transfer 0.3"],
    "designed": ["SCLD, no effects", "SCLD, new donors", "inflation", "real, thinned", "nearby"],
    "donors": ["right donor", "SCLD, p", "marker means", "made up at random"],
    "evaluation_cost": ["synthetic cells", "peak memory"],
    "finite": ["training values", "without replacement", "with replacement"],
    "gpu": ["SCLD, CPU", "SCVI, CPU", "denoiser, cells/s"],
    "grading": ["c2st", "worse"],
    "growth": ["fit, peak MB", "exponent, growing", "import scld"],
    "guidance": ["baseline", "weight 3, select", "weight 1, off", "median counts per cell"],
    "hostile": ["a flipped bit", "malformed cells", "a killed fit, resumed", "tried", "bad"],
    "loaders": ["scld, from the copy", "anndata, backed", "making the copy"],
    "memory": ["estimate, MB", "added, MB", "estimate / added"],
    "peers": ["scVI posterior, default", "NB copula", "shuffle", "gge_w1", "cpu_seconds"],
    "pictures": ["pbmc-umap.png", "pbmc-types.png", "pbmc-targeted.png", "pbmc-markers.png"],
    "quality": ["effect_slope", "baseline", "SCLD", "bootstrap", "C2ST - baseline", "target"],
    "rare": ["recall", "precision", "f1", "SMOTE", "augment", "forest", "logistic"],
    "scale": ["2 workers", "of one worker's rate, %", "all cells from disk", "reading, MB/s"],
    "sizes": ["fit_seconds", "peak_memory_mb", "autoencoder_steps", "baseline", "made up"],
    "versions": ["this", "other", "ratio", "training the autoencoder", "sampling, cells/s"],
}
ARGUMENTS = {
    "pictures": ["--output", "pictures"],
    "sizes": ["--plot", "sizes.png"],
    "versions": ["--other", str(ROOT / "src")],
}
TABLES = {  # script -> tables of the docs that are printed from its results
    "ablation": ["ablation pbmc"],
    "audit": ["audit pbmc", "audit_variants pbmc"],
    "combinations": ["combinations pbmc"],
    "designed": [
        *("designed effects pbmc", "designed null pbmc", "designed donors pbmc"),
        *("designed composition pbmc", "designed doublets pbmc", "designed power pbmc"),
    ],
    "donors": ["donors fixed pbmc", "donors unspecified pbmc", "donors left_out pbmc"],
    "evaluation_cost": ["evaluation_cost"],
    "gpu": ["gpu pbmc"],
    "growth": ["growth", "starts"],
    "guidance": ["guidance pbmc", "counts pbmc"],
    "hostile": ["hostile"],
    "loaders": ["loaders"],
    "memory": ["memory"],
    "peers": ["peers scores pbmc", "peers published pbmc", "peers costs pbmc"],
    "quality": ["quality pbmc", "types pbmc", "targets", "biology"],
    "rare": ["rare pbmc"],
    "scale": ["scale generate", "scale fit", "scale read"],
    "sizes": ["sizes pbmc"],
}
RESULTS = ["--results", "results"]
PARTS = {  # part of speed.py -> parts of its table
    "autoencoder": ["scld, cells/s", "dense PyTorch, cells/s", "SCVI, cells/s", "scld / SCVI"],
    "quality": ["seconds of fitting", "0.125 of the steps", "1 epochs", "baseline"],
    "counts": ["torch + CSR, cells/s", "scld, zeros", "scld / torch + CSR"],
    "sampling": ["latent diffusion, %", "decoding, %", "counts, %", "writing, %"],
    "precision": ["float32", "bfloat16", "validation loss"],
    "steps": ["4 steps", "4 candidates", "baseline", "cells/s"],
}


def run(script, *arguments, folder):
    """Run a script; one thread, so that two tests at a time do not wait for each other."""
    return subprocess.run(
        [sys.executable, FOLDER / f"{script}.py", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def output_of(script, *arguments, folder):
    done = run(script, "--quick", *arguments, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_tables_are_printed(names, folder):
    done = run("tables", *names, *RESULTS, folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("|---|") >= len(names)
    assert "not run yet" not in done.stdout


def test_every_script_is_tested():
    assert {path.stem for path in FOLDER.glob("*.py")} == {*OUTPUT, "speed", "tables", *SHARED}


@pytest.mark.parametrize("script", OUTPUT)
def test_a_script_runs_and_prints_its_tables(script, tmp_path):
    arguments = [*ARGUMENTS.get(script, []), *(RESULTS if script in TABLES else [])]
    output = output_of(script, *arguments, folder=tmp_path)
    assert [text for text in OUTPUT[script] if text not in output] == []
    if script in TABLES:
        assert_tables_are_printed(TABLES[script], tmp_path)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_speed_runs_alone(part, tmp_path):
    output = output_of("speed", "--parts", part, *RESULTS, folder=tmp_path)
    assert [text for text in PARTS[part] if text not in output] == []
    assert_tables_are_printed([f"speed {part}", f"speed {part} pbmc"], tmp_path)


def test_tables_of_several_results(tmp_path):
    """The limit needs two scripts, and the effect of post-guidance two runs of one."""
    output_of("finite", *RESULTS, folder=tmp_path)
    output_of("quality", *RESULTS, folder=tmp_path)
    for post in ("off", "select"):
        output_of("quality", "--post", post, *RESULTS, folder=tmp_path)
    assert_tables_are_printed(["limit", "selection"], tmp_path)


def test_all_parts_of_speed_run_together(tmp_path):
    """Fits come after the training of SCVI, and where models are not saved yet."""
    output = output_of("speed", "--models", "models", folder=tmp_path)
    expected = [text for texts in PARTS.values() for text in texts]
    assert [text for text in expected if text not in output] == []
    assert (tmp_path / "models" / "pbmc-0-select-quick.scld" / "manifest.json").exists()


def test_a_saved_model_is_used_again(tmp_path):
    arguments = ("--models", "models", "--parts", "counts")
    assert "fitted in" in output_of("speed", *arguments, folder=tmp_path)
    assert "model loaded from models" in output_of("speed", *arguments, folder=tmp_path)


def test_datasets_come_from_the_data_dir(tmp_path):
    scld.datasets.pbmc().write_h5ad(tmp_path / "blood.h5ad")
    arguments = ("--data-dir", tmp_path, "--datasets", "blood")
    output = output_of("quality", *arguments, folder=tmp_path)
    assert "blood, seeds [0]" in output


def test_a_dataset_needs_a_data_dir(tmp_path):
    done = run("quality", "--datasets", "blood", folder=tmp_path)
    assert done.returncode == 2
    assert "--data-dir" in done.stderr
