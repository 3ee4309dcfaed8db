"""The invented audit trail of a plausible organisation, for `auditplane demo` and screenshots. Pure.

`events` promises, for equal arguments, equal events: exactly `count` of them, JSON-ready, with the members
of POST /v1/audit-events, ascending by distinct timestamps, none before the window or after its end.

Northwind runs its telemetry through some 60 configurations. The window goes by in slots of ten minutes; how
many events are due in a slot follows from who is at work. They come as activities (a person edits and rolls
out, the autoscaler adds agents), which run from a start time against the state of the organisation: versions
only grow, and what is deleted was there. A calendar adds chores and stories: a migration, a departure, an
incident night, a release freeze and the busy week after it, a stolen session. Addresses are from the
documentation ranges (RFC 5737, RFC 3849).
"""

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random
from typing import Any

from auditplane.times import DAY_US, SECOND_US, format_us

MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
SLOT_US = 10 * MINUTE_US
MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY, SATURDAY, SUNDAY = range(7)


def _rows(text: str) -> list[list[str]]:
    """A table: a line is a row, and | stands between cells."""
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


def _user(name: str) -> str:
    return name if " " in name else f"{name}@northwind.example"


CI, TERRAFORM, AUTOSCALER = _user("ci-deploy"), _user("terraform"), _user("autoscaler")
ALERTS, SYSTEM = _user("alerts"), _user("system")

# Fixed offsets from UTC: whose summer time it is does not matter to the picture.
SITES = {"eu": HOUR_US, "us": -5 * HOUR_US, "in": 5 * HOUR_US + 30 * MINUTE_US}
HOLIDAYS = {
    "eu": {(1, 1), (1, 6), (5, 1), (10, 3), (11, 1), (12, 24), (12, 25), (12, 26), (12, 31)},
    "us": {(1, 1), (1, 20), (2, 17), (5, 26), (6, 19), (7, 4), (9, 1), (11, 27), (11, 28), (12, 25)},
    "in": {(1, 1), (1, 26), (3, 14), (4, 14), (8, 15), (10, 2), (10, 21), (11, 5), (12, 25)},
}
# How busy people are by the local hour, from midnight.
WORKDAY = (2, 1, 0, 0, 0, 1, 4, 18, 62, 96, 100, 88, 46, 80, 97, 90, 70, 40, 17, 9, 8, 7, 5, 3)

# Teams, and their members at each site. A name with a blank is a display name, any other becomes an e-mail
# address.
PEOPLE = _rows("""
platform  | anneke.vos, Jürgen Weiß, Zoë Lindqvist, pieter.maas, marek.novak | dana.whitfield, luis.ortega |\
    priya.raman, Ananya Iyer
sre       | katrin.bauer, Łukasz Wójcik, tobias.brandt | marcus.hale, renee.dubois, theo.lang |\
    arjun.mehta, deepa.nair
security  | Søren Østergård, ines.calvo     | gwen.park, José Núñez
data      | Chloé Lefèvre, milan.horvat     | sam.okafor, Beyza Yıldız | rohit.sinha
payments  | elena.rossi, jonas.keller       | tasha.grant              | kavya.menon
web       | nora.lindt, André Gonçalves     | caleb.stone, mia.tran    | vikram.shetty
workplace | heike.lorenz, Ondřej Dvořák     | brent.sawyer             | farah.khan
admin     | ruth.aalto                      | oliver.finch
audit     | Márta Szűcs                     | helen.yates
support   | lucie.roche                     | joel.banks, wendy.liu    | sunil.gupta
""")
# The first of each team and site is the busiest.
EAGERNESS = {"platform": 3.0, "sre": 2.5, "data": 1.4, "security": 1.1, "payments": 1.0, "web": 0.9}
NEWCOMERS = {"rohit.sinha": 0.2, "Beyza Yıldız": 0.45, "theo.lang": 0.7}  # when in the window they join
LEAVER, VICTIM, INVESTIGATOR, AUDITOR = "tobias.brandt", "marek.novak", "Søren Østergård", "Márta Szűcs"
ADMIN, ON_CALL, SECOND, MIGRATORS = "ruth.aalto", "katrin.bauer", "renee.dubois", ("anneke.vos", "sam.okafor")
CAST = {LEAVER, VICTIM, INVESTIGATOR, AUDITOR, ADMIN, ON_CALL, SECOND, *MIGRATORS}  # without vacations

# Stories: minutes from their beginning, user, action, kind, name, description.
MIGRATION = _rows("""
   0 | anneke.vos | Created | Credential | clickhouse-writer | MIG-12: logs move from Splunk to ClickHouse
   3 | anneke.vos | Created | Destination | clickhouse-eu | MIG-12: target of the migration, see the plan
  21 | sam.okafor | Modified | Blueprint | gateway-ha | MIG-12: new gateways send to ClickHouse
""")
DEPARTURE = _rows("""
   0 | ruth.aalto | Modified | Fleet | lab-berlin | Owner was tobias.brandt, now katrin.bauer
   4 | ruth.aalto | Deleted | APIKey | tobias-cli | Owner leaves Northwind
   5 | ruth.aalto | Deleted | APIKey | tobias-notebook | Owner leaves Northwind
   5 | ruth.aalto | Deleted | APIKey | tobias-lab-berlin | Owner leaves Northwind
   9 | ruth.aalto | Deleted | UserAccountBinding | tobias.brandt |
   9 | ruth.aalto | Deleted | UserOrganizationBinding | tobias.brandt |
  10 | ruth.aalto | Deleted | User | tobias.brandt | Last working day of tobias.brandt
  31 | Søren Østergård | Modified | Credential | splunk-hec-prod | Rotated: known to tobias.brandt
""")
FREEZE = _rows("""
   0 | dana.whitfield | Modified | Account | northwind-prod | Release freeze until Monday 06:00 UTC, CHG-4410
   2 | dana.whitfield | Created | Notification | release-freeze | Tells who edits production during the freeze
""")
THAW = _rows("""
   0 | dana.whitfield | Modified | Account | northwind-prod | Release freeze lifted, CHG-4410
   1 | dana.whitfield | Deleted | Notification | release-freeze |
""")
THEFT = _rows("""
   0 | marek.novak | Failed | Login | marek.novak | Second factor not confirmed
   1 | marek.novak | Failed | Login | marek.novak | Second factor not confirmed
   3 | marek.novak | Failed | Login | marek.novak | Second factor not confirmed
   6 | marek.novak | Created | Login | marek.novak | Login from a network not seen before
   8 | marek.novak | Created | APIKey | backup-sync | Role admin, no expiry
  10 | marek.novak | Downloaded | AuditTrail | audit-events.csv |
  12 | marek.novak | Exported | Configuration | prod-gateway |
  12 | marek.novak | Exported | Configuration | siem-forwarder |
  13 | marek.novak | Exported | Configuration | pci-cardholder |
  13 | marek.novak | Exported | Configuration | k8s-payments |
  14 | marek.novak | Exported | Configuration | k8s-identity |
  19 | marek.novak | Created | Destination | s3-mirror |
  21 | marek.novak | Deleted | Notification | key-created |
""")
INVESTIGATION = _rows("""
   0 | Søren Østergård | Downloaded | AuditTrail | audit-events.csv | SEC-88: marek.novak since Friday
   7 | Søren Østergård | Deleted | APIKey | backup-sync | SEC-88: not created by its owner
   8 | Søren Østergård | Deleted | Destination | s3-mirror | SEC-88: bucket is not ours
   9 | Søren Østergård | Modified | User | Suspended | SEC-88: marek.novak suspended
  12 | Søren Østergård | Created | Notification | key-created | SEC-88: restored
  25 | Søren Østergård | Modified | Credential | splunk-hec-prod | SEC-88: rotated, may have been read
  27 | Søren Østergård | Modified | Credential | secops-ingest | SEC-88: rotated, may have been read
  33 | Søren Østergård | Modified | SecretsManager | vault-eu | SEC-88: all leases revoked
  70 | ines.calvo | Created | PrometheusRule | LoginNewNetwork | SEC-88: alert on logins from new networks
  95 | ruth.aalto | Modified | Organization | northwind | SEC-88: hardware keys required of every member
 300 | Márta Szűcs | Downloaded | AuditTrail | audit-events.csv | SEC-88: evidence for the report
1540 | Søren Østergård | Modified | User | Editor | SEC-88: marek.novak restored, new hardware key
1541 | Søren Østergård | Modified | UserAccountBinding | marek.novak | SEC-88: no longer administrator
""")
ESTATE = _rows("""
   0 | ruth.aalto | Created | Account | northwind-labs | Trials leave the production project
   2 | ruth.aalto | Created | AccountOrganizationBinding | northwind-labs |
   6 | oliver.finch | Modified | Organization | northwind | New billing contact
  15 | terraform | Unknown | Unknown | legacy-relay | Imported from the old project, of no known kind
""")

# A family of configurations, the source and the destination types in them, and their names, busiest first.
FAMILIES = _rows("""
gateway  | otlp prometheus syslog kafka | splunk_hec google_cloud prometheus_remote_write s3 |\
    prod-gateway prod-traces prod-metrics prod-gateway-dr staging-gateway staging-traces dev-gateway
edge     | syslog tcplog hostmetrics journald | otlp_grpc splunk_hec |\
    edge-eu-west edge-us-east edge-eu-north edge-us-west edge-ap-south edge-sa-east edge-gdansk staging-edge
k8s      | k8s_container k8s_cluster kubelet k8s_events otlp | otlp_grpc splunk_hec loki |\
    k8s-payments k8s-checkout k8s-ingress k8s-identity k8s-catalog k8s-search k8s-batch-jobs k8s-fulfilment\
    k8s-observability k8s-data-platform staging-k8s dev-k8s
windows  | windowsevents active_directory iis sqlserver | splunk_hec google_secops |\
    windows-ad windows-iis windows-sql windows-exchange windows-file-servers windows-laptops staging-windows
data     | postgresql kafka redis mysql hostmetrics | prometheus_remote_write splunk_hec |\
    postgres-orders kafka-core postgres-ledger redis-sessions mysql-legacy sqlserver-erp airflow staging-data
web      | nginx filelog otlp apache_http | splunk_hec loki google_cloud |\
    web-storefront nginx-public mobile-api web-cdn nginx-internal apache-legacy staging-web
security | syslog windowsevents filelog okta | google_secops splunk_hec s3 |\
    siem-forwarder siem-firewall siem-vpn siem-identity pci-cardholder edr-events
cloud    | aws_s3 google_pubsub azure_event_hub | google_secops s3 splunk_hec |\
    aws-audit aws-vpc-flow gcp-audit azure-activity aws-lambda dev-cloud
""")
OWNED = {
    "platform": ("gateway", "edge", "k8s", "cloud"),
    "sre": ("gateway", "k8s", "edge"),
    "security": ("security", "cloud"),
    "data": ("data", "gateway"),
    "payments": ("k8s",),
    "web": ("web",),
    "workplace": ("windows",),
}
PROCESSORS = (
    "batch filter_severity mask_sensitive_data resource_detection sampling deduplicate transform parse_json"
)
CONNECTORS, EXTENSIONS = "routing count span_metrics", "health_check file_storage pprof"
OPTIONAL = [
    (kind, name)
    for kind, names in (("Processor", PROCESSORS), ("Connector", CONNECTORS), ("Extension", EXTENSIONS))
    for name in names.split()
]
# Component type: a parameter, values it takes, and why somebody changes it.
Setting = str | int | float | bool
USUAL_SETTING: tuple[str, tuple[Setting, ...], str] = (
    "retries",
    (0, 3, 5, 10),
    "Upstream is slow on the hour",
)
SETTINGS: dict[str, tuple[str, tuple[Setting, ...], str]] = {
    "otlp": ("max_recv_msg_size_mib", (4, 8, 16, 32), "Large trace batches were refused"),
    "filelog": ("poll_interval", ("200ms", "500ms", "1s", "5s"), "Trade latency for CPU on busy hosts"),
    "k8s_container": ("exclude", ("kube-system", "kube-system,istio-system", ""), "Leave out mesh sidecars"),
    "kubelet": ("collection_interval", ("15s", "30s", "60s"), "Too many active series"),
    "hostmetrics": ("collection_interval", ("15s", "30s", "60s", "120s"), "Too many active series"),
    "prometheus": ("scrape_interval", ("15s", "30s", "60s"), "Scrapes overran their interval"),
    "syslog": ("max_log_size_kib", (64, 256, 1024), "Firewall messages were cut short"),
    "windowsevents": ("channels", ("Security", "Security,System", "Security,Application"), "SIEM coverage"),
    "kafka": ("session_timeout", ("30s", "60s", "120s"), "Consumers kept rebalancing"),
    "nginx": ("sample_percent", (10, 25, 50, 100), "Access logs doubled with the campaign"),
    "batch": ("send_batch_size", (512, 1024, 2048, 4096, 8192), "Exporters were queueing"),
    "filter_severity": ("minimum", ("debug", "info", "warn"), "Drop debug logs from chatty services"),
    "mask_sensitive_data": ("rules", ("iban,email", "iban,email,phone", "iban,pan"), "Audit finding F-12"),
    "resource_detection": (
        "detectors",
        ("env", "env,system", "env,gcp,eks"),
        "Region was missing on some hosts",
    ),
    "sampling": ("drop_ratio", (0.1, 0.25, 0.5, 0.8, 0.9), "Stay below the daily ingest quota"),
    "deduplicate": ("interval", ("10s", "30s", "60s"), "Retry storms fill the index"),
    "transform": ("error_mode", ("ignore", "silent", "propagate"), "One bad record stopped the batch"),
    "parse_json": ("target", ("body", "attributes"), "Search by field in the index"),
    "routing": ("default_route", ("logs/default", "logs/archive", "none"), "Unmatched logs went nowhere"),
    "span_metrics": ("histogram", ("explicit", "exponential"), "Latency buckets were too coarse"),
    "health_check": ("path", ("/", "/health", "/ready"), "Load balancer probe"),
    "file_storage": ("compaction", (True, False), "Queue files grew without end"),
    "splunk_hec": ("max_connections", (10, 20, 50, 100), "Indexers answered 503 under load"),
    "clickhouse": ("async_insert", (True, False), "Inserts blocked on merges"),
    "loki": ("max_streams", (5000, 10000, 20000), "Stream limit reached"),
    "otlp_grpc": ("compression", ("none", "gzip", "zstd"), "Cut egress cost between regions"),
    "prometheus_remote_write": ("shards", (5, 10, 20, 40), "Remote write fell behind"),
    "google_secops": ("batch_size_kib", (512, 1024, 4096), "Requests went over the size limit"),
    "s3": ("partition", ("hour", "minute"), "Smaller objects for the replay job"),
}
# Things outside any one configuration, and why they change. At the start there are the first three; the first
# two are never deleted.
LIBRARY_ROWS = _rows("""
Destination     | splunk-prod secops-eu loki-shared datadog-trial kafka-archive | Endpoint is behind the proxy
Source          | otlp-standard syslog-network winlog-baseline | Team default
Processor       | mask-pii drop-debug enrich-region dedupe-burst | Shared by all regions
Connector       | route-by-team count-errors | One route for each cost centre
Extension       | health-check-standard persistent-queue | Survive a restart of the node
Integration     | slack-telemetry pagerduty-sre jira-changes servicenow | New channel for change notices
Notification    | rollout-failed key-created agent-offline quota-80-percent | Less noise at night
PrometheusRule  | ExporterQueueFull AgentOffline DroppedTelemetry IngestQuota | Threshold after review
Fleet           | gw-eu lab-berlin lab-chicago edge-pilot win-test | New node pool
Blueprint       | k8s-standard gateway-ha windows-baseline pci-logging | From the platform guild
ResourcePreset  | small-agent large-gateway low-latency | Sizing from the load test
Credential      | splunk-hec-prod secops-ingest gcp-writer s3-archive kafka-sasl | Scheduled rotation
SecretsManager  | vault-eu vault-us aws-secrets-prod | New mount path
PublicProcessor | mask-card-numbers parse-w3c | Published for all projects
""")
LIBRARY = {kind: (names.split(), why) for kind, names, why in LIBRARY_ROWS}
LIBRARY_OF = {
    "platform": "Blueprint ResourcePreset Processor Source Connector Extension PublicProcessor Fleet",
    "sre": "PrometheusRule Notification Fleet Extension PrometheusRule",
    "security": "Credential SecretsManager Credential Notification",
    "data": "Destination Integration Processor Connector",
    "admin": "Integration Notification",
}
FLEETS = {"gw-eu": 40, "gw-us": 36, "gw-ap": 14, "k8s-eu": 60, "k8s-us": 48, "win-dc": 30, "edge-stores": 55}
KEYS = "ci-deploy terraform autoscaler grafana-sync siem-export cmdb-sync"
TYPES = _rows("""
SourceType          | otlp filelog k8s_container windowsevents prometheus okta
ProcessorType       | batch filter_severity mask_sensitive_data sampling deduplicate transform
ConnectorType       | routing count span_metrics
DestinationType     | splunk_hec clickhouse loki s3 google_secops otlp_grpc
ExtensionType       | health_check file_storage pprof
AgentType           | observiq-otel-collector otelcol-contrib
ConfigurationType   | modular raw
RolloutType         | standard progressive
RecommendationType  | deduplicate sampling drop-unused-field
SecretsManagerType  | vault aws-secrets-manager
CredentialType      | basic-auth gcp-service-account aws-role
IntegrationType     | slack pagerduty servicenow
AvailableComponents | observiq-otel-collector
""")  # what an upgrade of the server brings
RECOMMENDATIONS = ("deduplicate", "sampling", "drop-unused-field")
PAUSES = ("Error rate above 2 %", "Waiting for the change board", "Agents offline in one zone", "Queue grows")
WISHES = ("Customer ticket", "Weekly review", "Dashboard request", "Load test", "Hand-over", "Cost report")

Item = tuple[int, dict[str, Any]]  # when, in microseconds since 1970, and the event without it
Steps = Generator[Item, None, int]  # gives back when it is over


@dataclass(frozen=True)
class Person:
    """Somebody at a site, with the configurations that they care for, favourites first."""

    user: str
    team: str
    site: str
    eagerness: float
    favourites: tuple[str, ...]


@dataclass
class Configuration:
    """What a configuration is by now. Nobody else edits it before `free_at`."""

    name: str
    version: int
    agents: int
    components: list[tuple[str, str]]
    settings: dict[str, Setting] = field(default_factory=dict)
    free_at: int = 0

    @property
    def versioned(self) -> str:
        return f"{self.name}:{self.version}"


class Organisation:
    """The state that activities share, at the moment that the simulation has reached."""

    def __init__(self, rng: Random, start: int, until: int) -> None:
        self.rng, self.start, self.until = rng, start, until
        self.configurations = {c.name: c for c in _configurations(rng)}
        self.people = {person.user: person for person in _people(rng)}
        self.away = {user: [self._vacation()] for user in self.people if user not in map(_user, CAST)}
        self.library = {kind: set(names[:3]) for kind, (names, _) in LIBRARY.items()}
        self.agents_named = rng.randrange(65_536)
        self.fleets = {fleet: [self.agent_name(fleet) for _ in range(size)] for fleet, size in FLEETS.items()}
        self.agent_version = 71
        self.trial_keys: list[str] = []
        self.sessions: dict[str, tuple[int, str]] = {}  # user: day of the last login, and address
        self.busy_until: dict[str, int] = {}
        self.thaw = self.at(0.62, MONDAY, 6)
        self.moods = [rng.uniform(0.7, 1.3) for _ in range(start // DAY_US, until // DAY_US + 1)]  # by day

    def at(self, fraction: float, weekday: int, hour: int, minute: int = 0) -> int:
        """A time on that weekday (UTC), in the week in which this fraction of the window has passed."""
        day = (self.start + int(fraction * (self.until - self.start))) // DAY_US
        monday = day - (day + THURSDAY) % 7  # day 0 was a Thursday
        return (monday + weekday) * DAY_US + hour * HOUR_US + minute * MINUTE_US

    def soon(self, low: float, high: float) -> int:
        """A delay of so many seconds, in microseconds."""
        return int(self.rng.uniform(low, high) * SECOND_US)

    def agent_name(self, fleet: str) -> str:
        """A random-looking name, unique among 65,536: an odd factor permutes the 16 bits."""
        self.agents_named += 1
        return f"{fleet}-{self.agents_named * 40_503 % 65_536:04x}"

    def is_away(self, user: str, t: int) -> bool:
        return any(begin <= t < end for begin, end in self.away.get(user, ()))

    def is_frozen(self, t: int) -> bool:
        return self.thaw - 7 * DAY_US <= t < self.thaw

    def event(
        self,
        t: int,
        user: str,
        action: str,
        kind: str,
        name: str,
        on: str = "",
        why: str = "",
        **details: Any,
    ) -> Item:
        """An event on configuration `on`, with `why` as description; people's carry request and address."""
        body: dict[str, Any] = {"resourceName": name}
        if why:
            body["description"] = why
        body["resourceKind"] = kind
        if on:
            body["configuration"] = on
        body |= {"action": action, "user": user}
        if user in self.sessions:
            details |= {
                "requestId": f"{self.rng.getrandbits(64):016x}",
                "sourceAddress": self.sessions[user][1],
            }
        if details:
            body["details"] = details
        return t, body

    def claim(self, names: Iterable[str], t: int) -> Configuration | None:
        """The first of these configurations that nobody is editing and no freeze protects."""
        for name in names:
            protected = self.is_frozen(t) and not name.startswith(("staging", "dev"))
            if self.configurations[name].free_at <= t and not protected:
                return self.configurations[name]
        return None

    def _vacation(self) -> tuple[int, int]:
        begin = self.at(self.rng.random(), MONDAY, 0) - 2 * DAY_US
        return begin, begin + self.rng.choice((0, 5, 9, 9, 16)) * DAY_US


Activity = Callable[[Organisation, int, str], Iterable[Item]]


def events(*, until_us: int, days: int = 90, count: int = 50_000, seed: int = 7) -> Iterator[dict[str, Any]]:
    """Yield `count` events of the `days` before `until_us` (microseconds since 1970, UTC), oldest first."""
    org = Organisation(Random(seed), until_us - days * DAY_US, until_us)
    items = sorted(_history(org, count), key=lambda item: item[0])
    later, dated = until_us + 1, []
    for t, body in reversed(items[len(items) - count :]):
        later = min(t, later - 1)
        dated.append({"timestamp": format_us(later)} | body)
    yield from reversed(dated)


def _history(org: Organisation, count: int) -> list[Item]:
    """At least `count` events within the window: the last activity of a slot may exceed what is due."""
    calendar = sorted(_calendar(org), key=lambda entry: entry[0])
    slots = range(org.start, org.until, SLOT_US)
    weights = [_busyness(org, t) for t in slots]
    scale = count / sum(weights)
    history: list[Item] = []
    due = 0.0
    for t, weight in zip(slots, weights, strict=True):
        end = min(t + SLOT_US, org.until)
        while calendar and calendar[0][0] < end:
            history += _within(org, _attended(org, *calendar.pop(0)))
        due += weight * scale
        while len(history) < math.ceil(due):
            history += _within(org, _turn(org, org.rng.randrange(t, end)))
    return history


def _within(org: Organisation, items: Iterable[Item]) -> list[Item]:
    return [item for item in items if org.start <= item[0] <= org.until]


# Who is at work


def _people(rng: Random) -> Iterator[Person]:
    names_of = {family: names.split() for family, _, _, names in FAMILIES}
    for team, *members in PEOPLE:
        owned = [names_of[family] for family in OWNED.get(team, ())]
        for site, names in zip(SITES, members, strict=False):
            for index, name in enumerate(names.split(", ")):
                eagerness = EAGERNESS.get(team, 0.4) * rng.uniform(0.8, 1.2) * (0.6 if index else 4.5)
                favourites = [
                    n for own in owned for rank, n in enumerate(own) if rng.random() < 2 / (2 + rank)
                ]
                yield Person(_user(name), team, site, eagerness, tuple(favourites))


def _configurations(rng: Random) -> Iterator[Configuration]:
    for _, sources, destinations, names in FAMILIES:
        first, *others = destinations.split()
        for rank, name in enumerate(names.split()):
            components = [("Source", s) for s in rng.sample(sources.split(), rng.randint(1, 3))]
            components += [("Processor", p) for p in rng.sample(PROCESSORS.split(), rng.randint(2, 5))]
            components += [("Destination", d) for d in [first, *rng.sample(others, rng.randint(0, 1))]]
            yield Configuration(name, rng.randint(3, 90 // (1 + rank)), rng.randint(3, 400), components)


def _date(day: int) -> date:
    return date(1970, 1, 1) + timedelta(days=day)


def _presence(site: str, t: int) -> float:
    """The part of the people of a site that is at work, 0 to 1."""
    day, time = divmod(t + SITES[site], DAY_US)
    today = _date(day)
    free = today.weekday() >= SATURDAY or (today.month, today.day) in HOLIDAYS[site]
    lull = 0.4 if (today.month, today.day) > (12, 20) else 1.0
    return WORKDAY[time // HOUR_US] / 100 * lull * (0.04 if free else 1.0)


def _eagerness(org: Organisation, t: int) -> list[float]:
    presence = {site: _presence(site, t) for site in SITES}
    return [person.eagerness * presence[person.site] for person in org.people.values()]


def _busyness(org: Organisation, t: int) -> float:
    """The weight of a slot: people at work, a little for machines, and chance."""
    release_week = org.thaw <= t < org.thaw + 5 * DAY_US
    pace = 0.4 if org.is_frozen(t) else 2.2 if release_week else 1.0
    pace *= org.moods[t // DAY_US - org.start // DAY_US]
    return (MACHINES_SHARE / 2 + sum(_eagerness(org, t)) * pace) * org.rng.gammavariate(2.0, 0.5)


def _turn(org: Organisation, t: int) -> Iterable[Item]:
    """Something that a person at work, or else a machine, begins now; nothing if the person can't."""
    eagerness = _eagerness(org, t)
    if org.rng.random() * (sum(eagerness) + MACHINES_SHARE) < MACHINES_SHARE:
        return _one_of(org, MACHINES)(org, t, "")
    person = org.rng.choices(list(org.people.values()), eagerness)[0]
    if org.is_away(person.user, t) or org.busy_until.get(person.user, 0) > t:
        return ()
    return _attended(org, t, person.user, _one_of(org, WORK[person.team]))


def _one_of(org: Organisation, mix: dict[Activity, int]) -> Activity:
    return org.rng.choices(list(mix), list(mix.values()))[0]


def _attended(org: Organisation, t: int, user: str, activity: Activity) -> list[Item]:
    """The activity, after a login if the person has not logged in today."""
    items: list[Item] = []
    if user in org.people and org.sessions.get(user, (-1, ""))[0] < t // DAY_US:
        org.sessions[user] = t // DAY_US, _address(org, t, org.people[user])
        if org.rng.random() < 0.03:
            items.append(org.event(t, user, "Failed", "Login", user, method="saml"))
            t += org.soon(5, 40)
        items.append(org.event(t, user, "Created", "Login", user, method="saml"))
        t += org.soon(8, 400)
    items += activity(org, t, user)
    org.busy_until[user] = max((item[0] for item in items), default=t)
    return items


def _address(org: Organisation, t: int, person: Person) -> str:
    """Where a person works today: the office of the site, or at home."""
    if org.rng.random() < min(0.6, _presence(person.site, t)):
        return f"192.0.2.{10 + 80 * list(SITES).index(person.site) + org.rng.randrange(8)}"
    home = 1 + list(org.people).index(person.user)
    return f"2001:db8:{home:x}::{home * 37:x}" if home % 3 else f"198.51.100.{home * 4}"


# What people do


def edit(org: Organisation, t: int, user: str) -> Iterator[Item]:
    """A session on one of the user's favourite configurations."""
    names = org.people[user].favourites
    first = org.rng.choices(range(len(names)), [1 / rank for rank in range(1, len(names) + 1)])[0]
    if on := org.claim(names[first:] + names[:first], t):
        on.free_at = yield from _session(org, t, user, on)


def _session(org: Organisation, t: int, user: str, on: Configuration) -> Steps:
    """Components change, then the version, and mostly it is rolled out."""
    why = ""
    for _ in range(min(1 + int(org.rng.expovariate(0.35)), 14)):
        action, (kind, name), details, why = _component_change(org, on)
        yield org.event(t, user, action, kind, name, on.versioned, **details)
        t += org.soon(15, 240)
    yield _new_version(org, t, user, on, why if org.rng.random() < 0.3 else "")
    if org.rng.random() < 0.8:
        t = yield from _rollout(org, t + org.soon(10, 600), user, on)
    return t


def _component_change(
    org: Organisation, on: Configuration
) -> tuple[str, tuple[str, str], dict[str, Any], str]:
    """Change `on`: the action, the component, its details, and a reason if there is one to tell."""
    dice = org.rng.random()
    missing = [c for c in OPTIONAL if c not in on.components]
    if dice < 0.08 and missing and len(on.components) < 12:
        on.components.append(org.rng.choice(missing))
        return "Created", on.components[-1], {}, ""
    removable = [c for c in on.components if c in OPTIONAL]
    if dice > 0.92 and len(removable) > 1:
        component = org.rng.choice(removable)
        on.components.remove(component)
        return "Deleted", component, {}, ""
    component = org.rng.choice(on.components)
    parameter, values, why = SETTINGS.get(component[1], USUAL_SETTING)
    before = on.settings.get(component[1], values[0])
    after = org.rng.choice([value for value in values if value != before])
    on.settings[component[1]] = after
    return "Modified", component, {"before": {parameter: before}, "after": {parameter: after}}, why


def _new_version(
    org: Organisation, t: int, user: str, on: Configuration, why: str = "", **details: Any
) -> Item:
    on.version += 1
    details |= {"before": on.version - 1, "after": on.version}
    return org.event(t, user, "Modified", "Configuration", on.name, on.versioned, why, **details)


def _rollout(org: Organisation, t: int, user: str, on: Configuration) -> Steps:
    """Pending, Started, now and then Paused and Resumed, seldom rolled back."""
    t = yield from _start(org, t, user, on)
    if org.rng.random() < 0.14:
        t += org.soon(60, 900)
        done, reason = org.rng.randint(0, on.agents), org.rng.choice(PAUSES)
        yield org.event(t, user, "Paused", "Rollout", on.name, on.versioned, updated=done, reason=reason)
        t += org.soon(120, 2400)
        if org.rng.random() < 0.12:
            return (yield from _roll_back(org, t, user, on, on.version - 1, reason))
        yield org.event(t, user, "Resumed", "Rollout", on.name, on.versioned, updated=done)
    return t + org.soon(60, 600)


def _start(org: Organisation, t: int, user: str, on: Configuration) -> Steps:
    yield org.event(t, user, "Pending", "Rollout", on.name, on.versioned, agents=on.agents)
    t += org.soon(5, 150)
    yield org.event(t, user, "Started", "Rollout", on.name, on.versioned, agents=on.agents)
    return t


def _roll_back(org: Organisation, t: int, user: str, on: Configuration, to: int, why: str) -> Steps:
    """What version `to` held, as a new version: versions only grow."""
    yield _new_version(org, t, user, on, f"Roll back {on.name} to version {to}: {why}")
    return (yield from _start(org, t + org.soon(2, 20), user, on))


def experiment(org: Organisation, t: int, user: str) -> Iterator[Item]:
    """A configuration for a trial, with a name of its own, gone by the evening."""
    on = Configuration(f"sandbox-{org.rng.getrandbits(20):05x}", 1, 1, [("Source", "otlp"), *OPTIONAL[:2]])
    yield org.event(t, user, "Created", "Configuration", on.name, on.versioned)
    for _ in range(org.rng.randint(1, 3)):
        t = yield from _session(org, t + org.soon(60, 900), user, on)
    yield org.event(t + org.soon(60, 9000), user, "Deleted", "Configuration", on.name, on.versioned)


def preview(org: Organisation, t: int, user: str) -> Iterator[Item]:
    """Watch the live telemetry of a configuration for some minutes."""
    name = org.rng.choice(org.people[user].favourites)
    yield org.event(t, user, "Started", "Recording", name, name, reason=org.rng.choice(WISHES))
    yield org.event(t + org.soon(40, 1200), user, "Paused", "Recording", name, name)


def tend_library(org: Organisation, t: int, user: str) -> Iterator[Item]:
    """Create, change or delete things that live outside any one configuration."""
    for _ in range(org.rng.randint(1, 3)):
        kind = org.rng.choice(LIBRARY_OF[org.people[user].team].split())
        names, reason = LIBRARY[kind]
        name, present = org.rng.choice(names), org.library[kind]
        if name not in present:
            present.add(name)
            yield org.event(t, user, "Created", kind, name)
        elif name not in names[:2] and org.rng.random() < 0.15:
            present.remove(name)
            yield org.event(t, user, "Deleted", kind, name)
        else:
            yield org.event(t, user, "Modified", kind, name, reason=reason)
        t += org.soon(20, 300)


def tend_agents(org: Organisation, t: int, user: str) -> Iterator[Item]:
    """Restart a few agents of a fleet, or bring some to the newest version."""
    agents = org.fleets[org.rng.choice(list(org.fleets))]
    upgrade = org.rng.random() < 0.5
    for agent in org.rng.sample(agents, min(len(agents), org.rng.randint(2, 12) if upgrade else 2)):
        why = f"Upgrade agent {agent} to v1.{org.agent_version}.0" if upgrade else f"Restart agent {agent}"
        yield org.event(t, user, "Modified", "Agent", agent, why=why)
        t += org.soon(2, 40)


def manage_keys(org: Organisation, t: int, user: str) -> Iterator[Item]:
    """A key for a trial, or one less of them. The keys of services are rotated by the calendar."""
    if len(org.trial_keys) > 4:
        yield org.event(t, user, "Deleted", "APIKey", org.trial_keys.pop(0), reason="Not used for some time")
    else:
        purpose = org.rng.choice(("grafana", "notebook", "cmdb", "loadtest"))
        org.trial_keys.append(f"trial-{purpose}-{org.rng.getrandbits(12):03x}")
        yield org.event(t, user, "Created", "APIKey", org.trial_keys[-1], role="reader", expiresInDays=30)


def change_role(org: Organisation, t: int, user: str) -> Iterator[Item]:
    member = org.rng.choice([name for name in org.people if not org.is_away(name, t)])
    before, after = org.rng.sample(("Viewer", "User", "Editor"), 2)
    why = f"Changed the role of {member} from {before} to {after}"
    yield org.event(t, user, "Modified", "User", after, why=why, before=before, after=after)


def answer(org: Organisation, t: int, user: str) -> Iterator[Item]:
    """Take up a recommendation, or dismiss it."""
    name, action = org.rng.choice(org.people[user].favourites), org.rng.choice(("Modified", "Deleted"))
    yield org.event(t, user, action, "Recommendation", org.rng.choice(RECOMMENDATIONS), name)


def download_trail(org: Organisation, t: int, user: str) -> Iterator[Item]:
    yield org.event(t, user, "Downloaded", "AuditTrail", "audit-events.csv", reason="Weekly review")


def look_around(_org: Organisation, _t: int, _user: str) -> Iterable[Item]:
    """Reading leaves no trace but the login."""
    return ()


# What machines do. Each begins with an event at its start.


def scale(org: Organisation, t: int, _: str) -> Iterator[Item]:
    """Bring a fleet to the size that the hour asks for: agents come in the morning and go at night."""
    fleet = org.rng.choice(("gw-eu", "gw-us", "gw-ap", "k8s-eu", "k8s-us"))
    agents = org.fleets[fleet]
    site = {"us": "us", "ap": "in"}.get(fleet[-2:], "eu")
    wanted = int(FLEETS[fleet] * (0.6 + _presence(site, t)) * org.rng.uniform(0.9, 1.1))
    wanted = min(max(wanted, len(agents) - 14), len(agents) + 14)
    before, after = {"agents": len(agents)}, {"agents": wanted}
    yield org.event(t, AUTOSCALER, "Modified", "Fleet", fleet, before=before, after=after)
    while len(agents) < wanted:
        agents.append(org.agent_name(fleet))
        t += org.soon(0.2, 6)
        yield org.event(t, AUTOSCALER, "Created", "Agent", agents[-1])
    while len(agents) > wanted:
        t += org.soon(0.2, 6)
        yield org.event(t, AUTOSCALER, "Deleted", "Agent", agents.pop(0))


def deploy(org: Organisation, t: int, _: str) -> Iterator[Item]:
    """A commit reaches a configuration through the pipeline, if one is free."""
    commit = f"{org.rng.getrandbits(28):07x}"
    on = org.claim(org.rng.sample(list(org.configurations), 8), t)
    if not on:
        yield org.event(t, CI, "Unknown", "AvailableComponents", "observiq-otel-collector", commit=commit)
        return
    yield _new_version(org, t, CI, on, f"Apply commit {commit} of telemetry-configurations", commit=commit)
    on.free_at = yield from _rollout(org, t + org.soon(1, 4), CI, on)


def apply_terraform(org: Organisation, t: int, _: str) -> Iterator[Item]:
    run = f"run-{org.rng.getrandbits(32):08x}"
    for _n in range(org.rng.randint(1, 6)):
        kind = org.rng.choice(("Destination", "Source", "Processor", "Integration", "Notification", "Fleet"))
        yield org.event(t, TERRAFORM, "Modified", kind, org.rng.choice(sorted(org.library[kind])), run=run)
        t += org.soon(0.3, 3)


def recommend(org: Organisation, t: int, _: str) -> Iterator[Item]:
    name, saves = org.rng.choice(list(org.configurations)), org.rng.randint(3, 60)
    yield org.event(
        t, SYSTEM, "Created", "Recommendation", org.rng.choice(RECOMMENDATIONS), name, savesPercent=saves
    )


# What the calendar brings


def _script(story: list[list[str]]) -> Activity:
    """A story told line by line."""

    def tell(org: Organisation, begin: int, _: str) -> Iterator[Item]:
        for minute, name, action, kind, resource, why in story:
            t, user = begin + int(minute) * MINUTE_US + org.soon(0, 20), _user(name)
            yield from _attended(org, t - org.soon(20, 60), user, look_around)
            named = _user(resource) if resource in CAST else resource
            on = org.configurations[resource].versioned if kind == "Configuration" else ""
            yield org.event(t, user, action, kind, named, on, why)

    return tell


def steal(org: Organisation, t: int, _: str) -> Iterable[Item]:
    """Somebody else, from elsewhere, in the victim's name."""
    org.sessions[_user(VICTIM)] = t // DAY_US, "203.0.113.66"
    return _script(THEFT)(org, t, "")


def incident(org: Organisation, t: int, _: str) -> Iterator[Item]:
    """A nightly deployment fills the queues; two people try in vain, and go back at 03:00."""
    on = org.claim(("prod-gateway", "prod-traces", "prod-metrics"), t)
    if not on:
        return
    good, end, on_call = on.version, t + 2 * HOUR_US, _user(ON_CALL)
    yield _new_version(org, t, CI, on, "Apply commit e91b7c4 of telemetry-configurations", commit="e91b7c4")
    t = yield from _start(org, t + org.soon(2, 4), CI, on)
    t += org.soon(1500, 1700)
    yield org.event(
        t, ALERTS, "Started", "Notification", "queue-full", on.name, "Exporter queues 95 % full, INC-2291"
    )
    user = on_call
    while t < end - 15 * MINUTE_US:
        yield from _attended(org, t + org.soon(100, 200), user, look_around)
        t += org.soon(240, 400)
        for _n in range(org.rng.randint(1, 4)):
            action, (kind, name), details, _why = _component_change(org, on)
            yield org.event(t, user, action, kind, name, on.versioned, **details)
            t += org.soon(8, 50)
        yield _new_version(org, t, user, on)
        t = yield from _start(org, t + org.soon(3, 9), user, on)
        t += org.soon(90, 240)
        yield org.event(
            t, user, "Paused", "Rollout", on.name, on.versioned, reason="Queues still grow, INC-2291"
        )
        user = _user(SECOND) if user == on_call else on_call
    t = yield from _roll_back(org, max(t, end) + org.soon(5, 30), on_call, on, good, "INC-2291")
    for agent in org.fleets["gw-eu"][:18]:
        t += org.soon(4, 30)
        yield org.event(t, _user(SECOND), "Modified", "Agent", agent, why=f"Restart agent {agent}: INC-2291")
    on.free_at = t + org.soon(600, 900)
    yield org.event(
        on.free_at, ALERTS, "Paused", "Notification", "queue-full", on.name, "Queues drained, INC-2291"
    )


def migrate(org: Organisation, t: int, user: str) -> Iterator[Item]:
    """Move one more configuration from Splunk to ClickHouse, both in parallel for a while."""
    old, new = ("Destination", "splunk_hec"), ("Destination", "clickhouse")
    on = org.claim([c.name for c in org.configurations.values() if old in c.components], t)
    if not on:
        return
    yield org.event(t, user, "Created", *new, on.versioned)
    t += org.soon(60, 300)
    yield _new_version(org, t, user, on, f"MIG-12: {on.name} sends to ClickHouse beside Splunk")
    t = yield from _start(org, t + org.soon(10, 60), user, on)
    t += org.soon(1800, 5400)
    yield org.event(t, user, "Deleted", *old, on.versioned)
    t += org.soon(20, 90)
    yield _new_version(org, t, user, on, f"MIG-12: {on.name} no longer sends to Splunk")
    on.free_at = yield from _start(org, t + org.soon(10, 60), user, on)
    on.components = [new if component == old else component for component in on.components]


def rotate_keys(org: Organisation, t: int, user: str) -> Iterator[Item]:
    """New keys for the services, and the month before's deleted when nothing uses them any more."""
    today = _date(t // DAY_US)
    month, before = f"{today:%Y-%m}", f"{today.replace(day=1) - timedelta(days=1):%Y-%m}"
    for key in KEYS.split():
        t += org.soon(30, 120)
        yield org.event(t, user, "Created", "APIKey", f"{key}-{month}", role="writer", expiresInDays=40)
        yield org.event(
            t + org.soon(3000, 5000), user, "Deleted", "APIKey", f"{key}-{before}", reason="Rotated"
        )


def join(user: str) -> Activity:
    """Somebody is invited, joins, and gets a role."""

    def activity(org: Organisation, t: int, admin: str) -> Iterator[Item]:
        yield org.event(t, admin, "Created", "Invitation", user)
        t += org.soon(1000, 4000)
        for kind in ("User", "UserOrganizationBinding", "UserAccountBinding"):
            yield org.event(t, user, "Created", kind, user)
            t += org.soon(0.1, 0.3)
        why = f"Changed the role of {user} from Viewer to Editor"
        yield org.event(t + org.soon(600, 9000), admin, "Modified", "User", "Editor", why=why)
        org.away[user] = [(org.start - DAY_US, t)]

    return activity


def upgrade_server(org: Organisation, t: int, _: str) -> Iterator[Item]:
    """The server itself is upgraded, and brings types."""
    for kind, names in TYPES:
        for name in names.split():
            t += org.soon(0.01, 0.2)
            yield org.event(
                t, SYSTEM, "Modified", kind, name, "", f"Changed by the upgrade of the server: {name}"
            )


def release_agent(org: Organisation, t: int, _: str) -> Iterator[Item]:
    org.agent_version += 1
    yield org.event(t, SYSTEM, "Created", "AgentVersion", f"observiq-otel-collector:v1.{org.agent_version}.0")


def _calendar(org: Organisation) -> list[tuple[int, str, Activity]]:
    """What is certain to happen: when, to whom, what. Some of it may lie outside a short window."""
    stories = [
        (org.at(0.15, MONDAY, 8, 30), _user(MIGRATORS[0]), _script(MIGRATION)),
        (org.at(0.3, WEDNESDAY, 9, 15), _user(ADMIN), _script(ESTATE)),
        (org.at(0.4, FRIDAY, 14, 40), _user(ADMIN), _script(DEPARTURE)),
        (org.thaw - 11 * DAY_US - 5 * HOUR_US, "", incident),
        (org.thaw - 7 * DAY_US, "", _script(FREEZE)),
        (org.thaw, "", _script(THAW)),
        (org.at(0.85, SUNDAY, 2, 7), "", steal),
        (org.at(0.85, SUNDAY, 7, 40) + DAY_US, _user(INVESTIGATOR), _script(INVESTIGATION)),
        (org.until - org.soon(600, 800), _user(ON_CALL), tend_agents),
        (org.until - org.soon(20, 100), "", scale),
    ]
    org.away[_user(LEAVER)] = [(org.at(0.4, FRIDAY, 14), org.until + DAY_US)]
    org.away[_user(VICTIM)] = [(org.at(0.85, SATURDAY, 0), org.at(0.85, SUNDAY, 9, 30) + 2 * DAY_US)]
    for name, fraction in NEWCOMERS.items():
        begin = org.at(fraction, MONDAY, 8)
        org.away[_user(name)] = [(org.start - DAY_US, begin + DAY_US)]
        stories.append((begin, _user(ADMIN), join(_user(name))))
    for day in range(12):
        for hour in (9, 13, 14, 15) if day % 7 < SATURDAY else ():
            begin = org.at(0.15, MONDAY, hour) + day * DAY_US + org.soon(0, 3000)
            if _presence("eu", begin) > 0.2:
                stories.append((begin, _user(MIGRATORS[hour > 13]), migrate))
    monday = org.at(0.0, MONDAY, 0)
    for week, begin in enumerate(range(monday, org.until, 7 * DAY_US)):
        stories.append((begin + 7 * HOUR_US + org.soon(0, 4000), _user(AUDITOR), download_trail))
        if week % 2:
            stories.append((begin + TUESDAY * DAY_US + 19 * HOUR_US + org.soon(0, 3000), "", release_agent))
        if _date(begin // DAY_US).day <= 7:
            stories.append((begin + 8 * HOUR_US + org.soon(0, 9000), _user(INVESTIGATOR), rotate_keys))
            stories.append(
                (begin + WEDNESDAY * DAY_US + 20 * HOUR_US + org.soon(0, 3000), "", upgrade_server)
            )
    return [(t + org.soon(0, 15), user, activity) for t, user, activity in stories]


MACHINES_SHARE = 4.0  # as if so many people of eagerness 1 were always at work
MACHINES: dict[Activity, int] = {scale: 3, deploy: 8, apply_terraform: 3, recommend: 4}
WORK: dict[str, dict[Activity, int]] = {
    "platform": {edit: 14, preview: 3, tend_library: 4, tend_agents: 2, experiment: 1, answer: 1},
    "sre": {edit: 10, preview: 2, tend_agents: 3, tend_library: 4},
    "security": {edit: 5, tend_library: 4, manage_keys: 2},
    "data": {edit: 7, tend_library: 2, preview: 2, experiment: 1},
    "payments": {edit: 6, preview: 3, answer: 1},
    "web": {edit: 6, preview: 3, answer: 1},
    "workplace": {edit: 4, preview: 2},
    "admin": {change_role: 1, tend_library: 2, manage_keys: 1, look_around: 3},
    "audit": {look_around: 5, download_trail: 1},
    "support": {look_around: 3, tend_agents: 2},
}
