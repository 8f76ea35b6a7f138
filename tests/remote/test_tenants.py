import pytest

from remote.tenants import ANONYMOUS, Unauthorized, resolve_tenant, resolve_tenants
from tsdb.model.errors import BadData


@pytest.mark.parametrize("tenant", ["a", "A-z_0.9!*'()", "...", "fake", "x" * 150, "_a_"])
def test_accepts(tenant: str) -> None:
    assert resolve_tenant([tenant], multitenancy=True) == tenant


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        (["a", "b"], "2 X-Scope-OrgID headers"),
        (["a", "a"], "2 X-Scope-OrgID headers"),
        (["", "a"], "2 X-Scope-OrgID headers"),
        (["x" * 151], "too long: 151 bytes, max 150 bytes"),
        (["é" * 76], "too long: 152 bytes"),
        (["."], "reserved"),
        ([".."], "reserved"),
        (["__markers__"], "reserved"),
        (["__anything__"], "reserved"),
        (["user-index.json.gz"], "reserved"),
        (["a/b"], "'/' at position 1"),
        (["../../etc"], "'/' at position 2"),
        (["a\\b"], "unsupported character"),
        (["%2e%2e"], "unsupported character '%'"),
        (["a:b"], "unsupported character ':'"),
        (["a b"], "unsupported character ' '"),
        ([" a"], "unsupported character ' ' at position 0"),
        (["a\n"], "unsupported character '\\n' at position 1"),
        (["a\x00"], "unsupported character"),
        (["é"], "unsupported character"),
        (["\udce9"], "unsupported character"),
        (["a,b"], "unsupported character"),
        (["|"], "empty"),
        (["a|"], "empty"),
        (["a||b"], "empty"),
        (["a|.."], "reserved"),
        (["a|b"], "multiple org IDs present"),
    ],
)
def test_refuses(headers: list[str], sentence: str) -> None:
    with pytest.raises(BadData, match=sentence.replace("\\", "\\\\").replace("(", "\\(").replace(".", "\\.")):
        resolve_tenant(headers, multitenancy=True)


@pytest.mark.parametrize("headers", [[], [""]])
def test_absent_is_unauthorized(headers: list[str]) -> None:
    with pytest.raises(Unauthorized, match="no org id"):
        resolve_tenant(headers, multitenancy=True)


@pytest.mark.parametrize("headers", [[], ["a"], ["../x"], ["a", "b"]])
def test_without_multitenancy_headers_are_not_looked_at(headers: list[str]) -> None:
    assert resolve_tenant(headers, multitenancy=False) == ANONYMOUS


def test_reads_may_be_federated() -> None:
    assert resolve_tenants(["b|a|b"], multitenancy=True) == ("a", "b")
    with pytest.raises(BadData, match="too many tenants, max: 16, actual: 17"):
        resolve_tenants(["|".join(f"t{i}" for i in range(17))], multitenancy=True)
