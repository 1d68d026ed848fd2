"""Nothing opens a connection: cells stay on the machine, and nothing is fetched."""

import socket

import pytest
from toy import make_cells

import scld

METHODS = ["bind", "connect", "connect_ex", "sendto"]
FUNCTIONS = ["create_connection", "create_server", "getaddrinfo", "gethostbyname"]


@pytest.fixture
def attempts(monkeypatch):
    """Calls of what reaches a network: each is refused, and listed if somebody caught the error."""
    attempts = []

    def forbid(owner, name):
        def refuse(*args, **options):
            attempts.append((name, args, options))
            raise AssertionError(f"{name}{args}: a connection")

        monkeypatch.setattr(owner, name, refuse)

    for name in METHODS:
        forbid(socket.socket, name)
    for name in FUNCTIONS:
        forbid(socket, name)
    return attempts


def test_a_connection_would_be_seen(attempts):
    with pytest.raises(AssertionError, match="create_connection"):
        socket.create_connection(("localhost", 9))
    with socket.socket() as open_socket, pytest.raises(AssertionError, match="connect"):
        open_socket.connect(("localhost", 9))
    assert [name for name, _, _ in attempts] == ["create_connection", "connect"]


def test_fit_save_load_sample_and_evaluate_open_no_connection(attempts, config, tmp_path):
    synth = scld.Synthesizer(["cell_type"], config=config).fit(make_cells(), progress=False)
    synth.save(tmp_path / "toy.scld")
    cells = scld.load(tmp_path / "toy.scld").sample(60, seed=0, progress=False)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    train, test = make_cells(seed=1), make_cells(seed=2)
    report = scld.evaluate(train, test, tmp_path / "cells.h5ad", "cell_type", progress=False)
    report.to_json(tmp_path / "report.json")
    assert attempts == []
