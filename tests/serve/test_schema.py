"""schemathesis generates requests from the OpenAPI description; the responses match it, and no request finds a bug."""

import subprocess
import sys

import pytest

from iava.serve.limits import Limits
from tests.serve.serving import running

# A request that matches the schema can still be refused, for example because its image cannot be read.
LEFT_OUT = "positive_data_acceptance"


@pytest.mark.slow
def test_every_response_matches_the_openapi_description(lvlm, tmp_path):
    # As a separate program, because its pytest plug-in does not support the newest pytest.
    command = [sys.executable, "-m", "schemathesis.cli", "run", "--max-examples", "60", "--seed", "1"]
    command += ["--phases", "examples,coverage,fuzzing", "--exclude-checks", LEFT_OUT, "--continue-on-failure"]
    with running(lvlm, method="greedy", limits=Limits(new_tokens=3)) as served:
        found = subprocess.run(
            [*command, f"{served.url}/openapi.json"], cwd=tmp_path, capture_output=True, text=True, timeout=900
        )
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]


def test_the_description_names_every_field_and_error(served):
    with served.http() as http:
        found = http.get("/openapi.json").json()
    asked = found["components"]["schemas"]["ChatRequest"]
    assert asked["additionalProperties"] is False
    assert {"model", "messages", "stop", "seed", "n", "stream", "logprobs", "iava"} <= set(asked["properties"])
    answers = found["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert {"200", "400", "401", "404", "413", "429", "503", "504"} <= set(answers)
    # A wrong field gets status 400, as in OpenAI's API.
    assert "422" not in answers
