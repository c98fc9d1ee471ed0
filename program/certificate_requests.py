"""Read the signing requests of clients who have created their keys themselves."""

from pathlib import Path

from pki.authority import PkiError, check_request
from settings.model import Settings
from settings.problems import Problem, SettingsError, problem_at

#: Paths in the stack file are relative to the program's directory.
ROOT = Path(__file__).resolve().parent.parent


def read_requests(settings: Settings) -> dict[str, str]:
    """Return the signing requests, PEM, by the clients' names; raises `SettingsError` with what is wrong with each."""
    requests, problems = {}, list[Problem]()
    for number, client in enumerate(settings.clients):
        if client.csr is None:
            continue
        key = f"clients[{number}].csr"
        remedy = (
            "create one on the client: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
            f"-keyout {client.name}.key -out {client.name}.csr -subj /CN={client.name}"
        )
        try:
            text = (ROOT / client.csr).read_text(encoding="ascii")
            check_request(text, client.name)
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            problems.append(problem_at(key, client.csr, reason, f"use a path relative to {ROOT}, or {remedy}"))
        except UnicodeDecodeError:
            problems.append(problem_at(key, client.csr, "is not a signing request in PEM", remedy))
        except PkiError as error:
            problems.append(problem_at(key, client.csr, f"cannot be signed: {error}", remedy))
        else:
            requests[client.name] = text
    if problems:
        raise SettingsError(problems)
    return requests
