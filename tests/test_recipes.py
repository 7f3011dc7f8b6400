"""The recipes in `docs/recipes`: what can be said of them without servers.

nginx and HAProxy check their own files; `tests/bench/test_recipes.py` runs them. Traefik and Kubernetes are not run: their
YAML is read into the types below, which have the fields used and no others, under the names and types of Traefik v3.7
(`pkg/config/dynamic`) and of the Kubernetes API (1.25 to 1.37). What is meant by them is compared with the app of the README and
with our own settings.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
import pytest
import yaml
from msgspec import Struct
from uvicorn.main import main as uvicorn_command

from bench.recipes import BALANCERS, command, placed, recipe, written
from bench.show import CannotShow
from sessile.settings import Settings

ROOT: Final = Path(__file__).parent.parent
RECIPES: Final = ROOT / "docs" / "recipes"
APP: Final = (ROOT / "examples" / "fastapi_app.py").read_text()
SECRET: Final = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"
SERVERS: Final = ("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")
GOES_ON_S: Final = Settings().drain_grace
T = TypeVar("T")


class Fields(Struct, forbid_unknown_fields=True, rename="camel"):
    """A mapping of which every name is known."""


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((RECIPES / name).read_text()))


def as_type(value: Any, kind: type[T]) -> T:
    return msgspec.convert(value, kind)


# --- nginx and HAProxy


@pytest.mark.parametrize("balancer", BALANCERS)
def test_every_server_is_in_the_recipe_and_can_be_replaced(balancer: str, tmp_path: Path) -> None:
    """A user finds three addresses; with others in their place none of the old is left."""
    text = placed(balancer, 9000, [9001, 9002, 9003], tmp_path)
    assert all(server in recipe(balancer) for server in SERVERS)
    assert "10.0.0." not in text and r"10\.0\.0" not in text
    assert "127.0.0.1:9000" in text


def test_a_recipe_without_its_addresses_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A show that silently ran something else than the file would show nothing."""
    monkeypatch.setattr("bench.recipes.recipe", lambda _: "frontend web\n    bind :80\n")
    with pytest.raises(CannotShow, match=r"haproxy\.cfg has no '10\.0\.0\.1:8000'"):
        placed("haproxy", 9000, [9001, 9002, 9003], tmp_path)


def checked(balancer: str, folder: Path, *options: str) -> str:
    """What the program says of its recipe."""
    file = written(balancer, 9000, [9001, 9002, 9003], folder)
    done = subprocess.run([*command(balancer, file), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.needs("nginx")
def test_nginx_takes_the_recipe(tmp_path: Path) -> None:
    """Without a warning."""
    said = checked("nginx", tmp_path, "-t")
    assert "test is successful" in said
    assert "[warn]" not in said


@pytest.mark.slow
@pytest.mark.needs("haproxy")
def test_haproxy_takes_the_recipe(tmp_path: Path) -> None:
    """Without a warning."""
    assert "WARNING" not in checked("haproxy", tmp_path, "-c")


def test_no_recipe_lets_a_post_be_repeated() -> None:
    """The words that would: none is a directive, and HAProxy's protection stands before its servers."""
    directives = [line.partition("#")[0] for file in RECIPES.iterdir() for line in file.read_text().splitlines()]
    assert not [line for line in directives if "non_idempotent" in line or "retryNonIdempotentMethod" in line]
    assert "    http-request disable-l7-retry unless { method GET HEAD OPTIONS PUT DELETE TRACE }" in directives


# --- Traefik


class Address(Fields):
    address: str


class FileProvider(Fields):
    filename: str
    watch: bool


class Providers(Fields):
    file: FileProvider


class Static(Fields):
    entry_points: dict[str, Address]
    providers: Providers


class Router(Fields):
    entry_points: list[str]
    rule: str
    middlewares: list[str]
    service: str


class Retry(Fields):
    attempts: int
    initial_interval: str


class Middleware(Fields):
    retry: Retry


class Cookie(Fields):
    name: str
    http_only: bool = msgspec.field(name="httpOnly")
    same_site: Literal["none", "lax", "strict", "default"]


class Sticky(Fields):
    cookie: Cookie


class HealthCheck(Fields):
    path: str
    interval: str
    timeout: str


class Backend(Fields):
    url: str


class LoadBalancer(Fields):
    sticky: Sticky
    health_check: HealthCheck
    servers: list[Backend]


class TraefikService(Fields):
    load_balancer: LoadBalancer


class Http(Fields):
    routers: dict[str, Router]
    middlewares: dict[str, Middleware]
    services: dict[str, TraefikService]


class Dynamic(Fields):
    http: Http


def milliseconds(text: str) -> float:
    assert text.endswith("ms")
    return float(text.removesuffix("ms"))


def test_traefik_names_what_is_there() -> None:
    """Entry point, middleware, service and file have the names by which others call them."""
    (static,) = (as_type(each, Static) for each in documents("traefik.yaml"))
    (dynamic,) = (as_type(each, Dynamic) for each in documents("traefik-services.yaml"))
    assert static.providers.file.filename.endswith("/services.yaml")
    for router in dynamic.http.routers.values():
        assert set(router.entry_points) <= set(static.entry_points)
        assert set(router.middlewares) <= set(dynamic.http.middlewares)
        assert router.service in dynamic.http.services


def test_traefik_sees_a_drain_and_asks_long_enough() -> None:
    """`/healthz` is the app's, two checks fall into a drain, and attempts go on until a check has seen a dead server."""
    (dynamic,) = (as_type(each, Dynamic) for each in documents("traefik-services.yaml"))
    balanced = dynamic.http.services["web"].load_balancer
    check, retry = balanced.health_check, dynamic.http.middlewares["next-server"].retry
    assert f'"{check.path}"' in APP
    assert 2 * (milliseconds(check.interval) + milliseconds(check.timeout)) <= GOES_ON_S * 1000
    assert (retry.attempts - 1) * milliseconds(retry.initial_interval) > milliseconds(check.interval)
    assert [each.url for each in balanced.servers] == [f"http://{server}" for server in SERVERS]


# --- Kubernetes


class Meta(Fields):
    name: str
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class TemplateMeta(Fields):
    labels: dict[str, str]


class Selector(Fields):
    match_labels: dict[str, str]


class RollingUpdate(Fields):
    max_unavailable: int
    max_surge: int


class UpdateStrategy(Fields):
    type: Literal["RollingUpdate"]
    rolling_update: RollingUpdate


class Spread(Fields):
    max_skew: int
    topology_key: str
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    label_selector: Selector


class FieldRef(Fields):
    field_path: Literal["status.podIP", "spec.nodeName"]


class KeyRef(Fields):
    name: str
    key: str


class ValueFrom(Fields):
    field_ref: FieldRef | None = None
    secret_key_ref: KeyRef | None = None


class Variable(Fields):
    name: str
    value: str | None = None
    value_from: ValueFrom | None = None


class ContainerPort(Fields):
    name: str
    container_port: int


class HttpGet(Fields):
    path: str
    port: str


class TcpSocket(Fields):
    port: str


class Probe(Fields):
    period_seconds: int
    failure_threshold: int
    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None


class Container(Fields):
    name: str
    image: str
    command: list[str]
    env: list[Variable]
    ports: list[ContainerPort]
    readiness_probe: Probe
    liveness_probe: Probe
    startup_probe: Probe


class PodSpec(Fields):
    termination_grace_period_seconds: int
    enable_service_links: bool
    topology_spread_constraints: list[Spread]
    containers: list[Container]


class Template(Fields):
    metadata: TemplateMeta
    spec: PodSpec


class DeploymentSpec(Fields):
    replicas: int
    selector: Selector
    strategy: UpdateStrategy
    min_ready_seconds: int
    template: Template


class ServicePort(Fields):
    name: str
    port: int
    target_port: str


class ServiceSpec(Fields):
    selector: dict[str, str]
    ports: list[ServicePort]
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    publish_not_ready_addresses: bool = False


class PortRef(Fields):
    name: str


class ServiceRef(Fields):
    name: str
    port: PortRef


class IngressBackend(Fields):
    service: ServiceRef


class IngressPath(Fields):
    path: str
    path_type: Literal["Prefix", "Exact", "ImplementationSpecific"]
    backend: IngressBackend


class IngressHttp(Fields):
    paths: list[IngressPath]


class IngressRule(Fields):
    host: str
    http: IngressHttp


class IngressSpec(Fields):
    ingress_class_name: str
    rules: list[IngressRule]


class BudgetSpec(Fields):
    max_unavailable: int
    selector: Selector


class Peer(Fields):
    pod_selector: Selector


class PolicyPort(Fields):
    port: str


class PolicyRule(Fields):
    ports: list[PolicyPort]
    from_: list[Peer] = msgspec.field(name="from", default_factory=list)


class PolicySpec(Fields):
    pod_selector: Selector
    policy_types: list[Literal["Ingress", "Egress"]]
    ingress: list[PolicyRule]


class Resource(Struct, forbid_unknown_fields=True, tag_field="kind", rename="camel"):
    """A document; its kind says which."""

    api_version: str
    metadata: Meta


class Deployment(Resource):
    spec: DeploymentSpec


class Service(Resource):
    spec: ServiceSpec


class Ingress(Resource):
    spec: IngressSpec


class PodDisruptionBudget(Resource):
    spec: BudgetSpec


class NetworkPolicy(Resource):
    spec: PolicySpec


VERSIONS: Final = {
    Deployment: "apps/v1",
    Service: "v1",
    Ingress: "networking.k8s.io/v1",
    PodDisruptionBudget: "policy/v1",
    NetworkPolicy: "networking.k8s.io/v1",
}


def resources() -> list[Deployment | Service | Ingress | PodDisruptionBudget | NetworkPolicy]:
    kinds = Deployment | Service | Ingress | PodDisruptionBudget | NetworkPolicy
    return [msgspec.convert(each, kinds) for each in documents("kubernetes.yaml")]


def only(kind: type[T]) -> T:
    (found,) = (each for each in resources() if isinstance(each, kind))
    return found


def container() -> Container:
    (found,) = only(Deployment).spec.template.spec.containers
    return found


def test_every_document_is_one_that_kubernetes_knows() -> None:
    """Each has the fields of its kind and no others, and the version in which its kind is stable."""
    found = resources()
    assert {type(each) for each in found} == set(VERSIONS)
    assert all(each.api_version == VERSIONS[type(each)] for each in found)


@pytest.mark.parametrize("wrong", ["replica", "minReadySecond", "kind"])
def test_a_field_that_is_none_is_found(wrong: str) -> None:
    """The types above can fail."""
    deployment = documents("kubernetes.yaml")[0]
    if wrong == "kind":
        deployment["kind"] = "Deploiment"
    else:
        deployment["spec"][wrong] = 3
    with pytest.raises(msgspec.ValidationError):
        as_type(deployment, Deployment)


def test_labels_ports_and_names_are_those_of_the_pods() -> None:
    """Whoever selects pods selects these, and whoever names a port or service names one that is there."""
    pods = only(Deployment).spec.template.metadata.labels
    ports = {port.name for port in container().ports}
    services = {each.metadata.name: each for each in resources() if isinstance(each, Service)}
    policy = only(NetworkPolicy).spec
    selectors = [
        only(Deployment).spec.selector.match_labels,
        only(PodDisruptionBudget).spec.selector.match_labels,
        policy.pod_selector.match_labels,
        *(each.spec.selector for each in services.values()),
        *(peer.pod_selector.match_labels for rule in policy.ingress for peer in rule.from_),
        *(each.label_selector.match_labels for each in only(Deployment).spec.template.spec.topology_spread_constraints),
    ]
    assert all(selector == pods for selector in selectors)
    assert {port.target_port for each in services.values() for port in each.spec.ports} == ports
    assert {port.port for rule in policy.ingress for port in rule.ports} == ports
    (path,) = (path for rule in only(Ingress).spec.rules for path in rule.http.paths)
    named = services[path.backend.service.name]
    assert path.backend.service.port.name in {port.name for port in named.spec.ports}


def test_the_pods_variables_are_settings_of_a_cluster() -> None:
    """Sessile reads them, the members' name is the headless Service, and each pod says at which address it is a member."""
    found = {"status.podIP": "10.1.2.3", "spec.nodeName": "node-7", "secret": SECRET}
    environ: dict[str, str] = {}
    for variable in container().env:
        source = variable.value_from
        if source is None:
            assert variable.value is not None
            environ[variable.name] = variable.value.replace("$(POD_IP)", environ["POD_IP"])
        elif source.field_ref is not None:
            environ[variable.name] = found[source.field_ref.field_path]
        else:
            assert source.secret_key_ref is not None
            environ[variable.name] = found[source.secret_key_ref.key]
    settings = Settings.load(environ=environ)
    assert settings.scheme == "primary-backup"
    assert environ["SESSILE_ME"] == "10.1.2.3:7400"
    assert settings.host_id == "node-7"
    headless = [each for each in resources() if isinstance(each, Service) and each.spec.cluster_ip == "None"]
    assert [f"dns:{each.metadata.name}:7400" in environ["SESSILE_URL"] for each in headless] == [True]
    assert all(each.spec.publish_not_ready_addresses for each in headless)
    assert {port.container_port for port in container().ports} == {8000, 7400}


def test_a_server_that_drains_is_not_killed_for_it() -> None:
    """Readiness asks the app, liveness does not, and there is time for the drain, requests and the hand-over."""
    pod, it = only(Deployment).spec.template.spec, container()
    assert it.readiness_probe.http_get is not None
    assert f'"{it.readiness_probe.http_get.path}"' in APP
    assert it.liveness_probe.http_get is None
    (given,) = (each.value for each in it.env if each.name == "SESSILE_DRAIN_GRACE")
    drain = Settings.load(
        "primary-backup://?members=a", secret=SECRET, environ={"SESSILE_DRAIN_GRACE": given or ""}
    ).drain_grace
    assert drain >= it.readiness_probe.period_seconds * it.readiness_probe.failure_threshold + 2
    assert pod.termination_grace_period_seconds > drain + 10
    assert only(Deployment).spec.strategy.rolling_update.max_unavailable == 0


def test_the_command_is_one_that_uvicorn_takes() -> None:
    """The options exist, and the app is the README's."""
    program, *options = container().command
    assert program == "uvicorn"
    context = uvicorn_command.make_context("uvicorn", list(options))
    assert context.params["app"] == "fastapi_app:app"
    assert context.params["port"] == 8000
