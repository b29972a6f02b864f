"""The keys of wrangler's schema.

Source: cloudflare/workers-sdk, ``packages/workers-utils/src/config/{config,environment,validation}.ts``
as of 2026-08-22; three older keys that old files still carry.
"""

from __future__ import annotations

from cfqueue.config.settings import CONSUMER, QUEUE


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: An environment has the top level's value where it gives none of its own.
INHERITED = _words("""
    access account_id assets base_dir build cache compatibility_date compatibility_flags
    compliance_region exports find_additional_modules first_party_worker jsx_factory jsx_fragment
    keep_names limits logfwdr logpush main migrations minify name no_bundle observability placement
    preserve_file_names preview_urls previews python_modules route routes rules triggers tsconfig
    upload_source_maps workers_dev
    node_compat usage_model
""")
#: An environment has only what it gives itself.
NOT_INHERITED = _words("""
    agent_memory ai ai_search ai_search_namespaces analytics_engine_datasets artifacts browser
    cloudchamber connect containers d1_databases define dispatch_namespaces durable_objects flagship
    hyperdrive images kv_namespaces media mtls_certificates pipelines queues r2_buckets ratelimits
    secrets secrets_store_secrets send_email services stream streaming_tail_consumers tail_consumers
    unsafe unsafe_hello_world vars vectorize version_metadata vpc_networks vpc_services websearch
    worker_loaders workflows
""")
#: Only at the top level.
ONLY_TOP_LEVEL = _words("""
    $schema addresses alias data_blobs dependencies_instrumentation dev env keep_vars
    pages_build_output_dir send_metrics site text_blobs wasm_modules
    legacy_env
""")
#: Our own table: settings of the application that wrangler has no word for.
OWN_TABLE = "cfqueue"

IN_ENVIRONMENT = INHERITED | NOT_INHERITED | {OWN_TABLE}
AT_TOP_LEVEL = IN_ENVIRONMENT | ONLY_TOP_LEVEL
#: Those of the not inherited that cfqueue uses: leaving one out of an environment is worth a word.
USED = ("queues", "vars", "durable_objects", "kv_namespaces", "d1_databases")

IN_QUEUES = frozenset({"producers", "consumers"})
IN_PRODUCER = frozenset({"queue", "remote", "experimental_remote", *QUEUE})
IN_CONSUMER = frozenset({"queue", "type", "visibility_timeout_ms", *CONSUMER})
