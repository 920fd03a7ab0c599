"""One file per family of APIs: what `ls` shows here is what a client may ask for."""

from typing import Final

from streamcore.broker.handlers import (
    api_versions,
    cluster,
    configs,
    consumer_groups,
    coordinators,
    fetch,
    groups,
    leader_epochs,
    log_dirs,
    metadata,
    offsets,
    partition_offsets,
    partitions,
    produce,
    producer_ids,
    quotas,
    records,
    replicas,
    sasl,
    scram_credentials,
    topics,
    transaction_states,
    transactions,
)
from streamcore.broker.requests import Handler
from streamcore.protocol.messages import Api

_FAMILIES = (
    api_versions, cluster, configs, consumer_groups, coordinators, fetch, groups, leader_epochs, log_dirs, metadata,
    offsets, partition_offsets, partitions, produce, producer_ids, quotas, records, replicas, sasl, scram_credentials,
    topics, transaction_states, transactions,
)  # fmt: skip

# API key -> the API, who answers it, and the first version that is served.
HANDLERS: Final[dict[int, tuple[Api, Handler, int]]] = {
    api.key: (api, handler, api.first_version) for family in _FAMILIES for api, handler in family.HANDLERS.items()
}
api_versions.advertise(HANDLERS)
