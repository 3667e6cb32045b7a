"""What Vault must hold, as people read it, and what differs from it."""

from datetime import timedelta
from pathlib import Path

from ca.signer import Kind
from ca.vault_plan import ROLES, Step, commands, differences, plan
from ca.vault_settings import parse_vault_settings

SETTINGS = parse_vault_settings(
    """trust_domain = "shop.example"
namespaces = ["shop", "bank"]
vault_addresses = ["https://vault.example:8200"]
vault_auth = "kubernetes"
vault_role = "tencrypt-ca"
""",
    {},
    None,
)
GOLDEN = Path(__file__).parents[2] / "golden/vault-setup.txt"


def test_commands_are_the_reviewed_ones() -> None:
    assert commands(plan(SETTINGS, timedelta(hours=24))) + "\n" == GOLDEN.read_text("ascii")


def test_each_kind_has_a_role_and_the_policy_runs_these_alone() -> None:
    made = plan(SETTINGS, timedelta(hours=1))
    assert [step.path for step in made.roles] == [
        f"tencrypt-pki/roles/{ROLES[kind]}" for kind in Kind
    ]
    lines = [
        line
        for line in str(made.policies[0].fields["policy"]).splitlines()
        if line.startswith("path ")
    ]
    assert [line.split('"')[1] for line in lines] == [
        *(
            f"tencrypt-pki/issuer/+/sign/{ROLES[kind]}"
            for kind in Kind
            if kind is not Kind.STATEMENT
        ),
        "tencrypt-kv/data/namespaces/+",
        "tencrypt-kv/metadata/namespaces/+",
        "tencrypt-kv/data/tokens/+",
        "tencrypt-kv/data/bundle",
        "tencrypt-kv/metadata/bundle",
        "tencrypt-kv/data/revocations",
        "tencrypt-kv/metadata/revocations",
        "auth/token/lookup-self",
        "auth/token/renew-self",
    ]


def test_the_server_says_not_who_joins_and_the_operator_not_who_has_joined() -> None:
    server, operator = (str(one.fields["policy"]) for one in plan(SETTINGS, timedelta(1)).policies)
    assert 'path "tencrypt-kv/data/tokens/+" { capabilities = ["read"] }' in server
    assert 'path "tencrypt-kv/data/namespaces/+" { capabilities = ["read"] }' in operator
    assert operator.count("/sign/") == operator.count("/sign/tencrypt-statement") == 1
    assert "statement" not in server


STEP = Step(
    "pki/roles/pod", {"max_ttl": 60, "domains": ["a", "b"], "policy": "x\n", "any": False}, ""
)


def test_what_stands_as_planned_is_no_difference() -> None:
    found = {"max_ttl": 60, "domains": ["b", "a"], "policy": "x", "any": False, "more": 1}
    assert differences(STEP, found) == []


def test_each_difference_is_a_line() -> None:
    assert differences(STEP, None) == ["pki/roles/pod is missing"]
    found: dict[str, object] = {"max_ttl": 61, "domains": None, "policy": "y" * 200, "any": None}
    assert differences(STEP, found) == [
        "pki/roles/pod: max_ttl is 61, and 60 is wanted",
        "pki/roles/pod: domains is None, and a, b is wanted",
        f"pki/roles/pod: policy is {'y' * 97}..., and x is wanted",
        "pki/roles/pod: any is None, and False is wanted",
    ]
