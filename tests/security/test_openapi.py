"""Requests made up from docs/openapi.yaml, good and bad, against a node that runs: whatever it answers is documented.

Each operation gets OPENAPI_EXAMPLES requests. The seed is printed; OPENAPI_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.helpers.cluster import Cluster

SEED = int(os.environ.get("OPENAPI_SEED", random.SystemRandom().randrange(2**32)))
EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "25"))
SCHEMA = schemathesis.openapi.from_path(Path(__file__).parents[2] / "docs" / "openapi.yaml")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
NOT_TRIED = {"POST /v1/node/drain"}
"""Would send away whom the other tests have connected."""

OPERATIONS = {
    operation.label: operation
    for operation in (found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok))
    if operation.label not in NOT_TRIED
}

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("label", OPERATIONS)
async def test_whatever_is_asked_the_answer_is_documented(patient_cluster: Cluster, label: str) -> None:
    key = {"Authorization": f"Bearer {patient_cluster.line['service_key']}"}
    url = patient_cluster.nodes[0].http

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy())
    def ask(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(base_url=url, headers=key, checks=CHECKS, timeout=10)

    print(f"\n{label}: {EXAMPLES} requests, OPENAPI_SEED={SEED}")  # noqa: T201 - to repeat it
    await asyncio.to_thread(ask)
