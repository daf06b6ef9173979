"""The bounds of the server, by what meets them."""

from __future__ import annotations

from tools.bounds.row import Row

CONNECTIONS = (
    Row(
        "{} connections on an address of gRPC and on an HTTP port, and fewer where few files may be open; one more "
        "takes the place of an HTTP connection that says nothing, and is closed on gRPC",
        ("bounds.descriptors:MOST_CONNECTIONS",),
        "file descriptors and memory",
        (
            "hostile/test_descriptors.py::test_one_port_full_of_silence_leaves_the_others",
            "hostile/test_http_connections.py::test_connections_that_do_not_work_make_room",
            "integration/test_security_limits.py::test_connections_past_the_limit_are_closed",
        ),
    ),
    Row(
        "{} open files are asked for, or the hard limit where that is lower ({} on macOS)",
        ("bounds.descriptors:MOST_OPEN_FILES", "bounds.descriptors:MAC_OPEN_FILES"),
        "connections, engines and files from one another",
        ("hostile/test_descriptors.py::test_all_ports_full_of_silence",),
    ),
    Row(
        "{} for the handshake on gRPC, {} on HTTP",
        ("rpc.listener:HANDSHAKE_SECONDS", "http.runner:HANDSHAKE_SECONDS"),
        "connections that speak from those that do not",
        ("hostile/test_handshakes.py::test_a_handshake_that_does_not_come_is_not_waited_for",),
    ),
    Row(
        "{} for the headers of an HTTP request, {} between two requests",
        ("http.runner:HEADER_SECONDS", "http.runner:KEEP_ALIVE_SECONDS"),
        "connections that speak from those that do not",
        (
            "hostile/test_http_connections.py::test_a_request_that_does_not_come_is_not_waited_for",
            "hostile/test_http_connections.py::test_silent_ones_end_before_those_that_send",
        ),
    ),
    Row(
        "{} without a sign of life, and a gRPC connection is pinged; without an answer it ends after {}",
        ("config:keepalive_seconds", "config:keepalive_timeout_seconds"),
        "calls and rows of clients that have vanished",
        ("proofs/test_wires.py::test_a_broken_wire_leaves_nothing_behind",),
    ),
    Row(
        "{} calls at once on a gRPC connection; one more is refused as REFUSED_STREAM. One on an HTTP connection",
        ("rpc.listener:MAX_STREAMS_PER_CONNECTION",),
        "memory: each call takes some 60 KiB",
        ("integration/test_security_limits.py::test_streams_past_the_limit_are_refused",),
    ),
    Row(
        "{} calls of paths that do not exist are answered at once",
        ("rpc.unregistered:AT_ONCE",),
        "memory, from clients that take no answer",
        ("hostile/test_log_text.py::test_a_path_that_is_no_text_ends_nothing_but_its_call",),
    ),
    Row(
        "{} of headers on gRPC, counted as decoded; {} on HTTP, with one read of the socket more",
        ("rpc.listener:MAX_HEADER_BYTES", "http.runner:MAX_HEADER_BYTES"),
        "memory",
        (
            "hostile/test_grpc_headers.py::test_headers_count_as_they_arrive",
            "integration/test_security_limits.py::test_http_headers_that_do_not_end_are_refused",
        ),
    ),
    Row(
        "{} headers in an HTTP request",
        ("http.wire.parser:MAX_HEADERS",),
        "the event loop",
        ("hostile/test_http_connections.py::test_many_small_headers_are_refused",),
    ),
)

ARRIVING = (
    Row(
        "{} in a gRPC message after decompression, and in the body of an HTTP request; {} on the admin port",
        ("config:max_request_bytes", "http.runner:MAX_BODY_BYTES"),
        "memory",
        (
            "integration/test_security_limits.py::test_messages_past_the_limit_are_refused",
            "integration/test_security_limits.py::test_http_bodies_past_the_limit_are_refused",
            "integration/test_security_limits.py::test_a_small_message_cannot_unfold",
            "hostile/test_http_shapes.py::test_the_admin_port_takes_small_bodies_alone",
        ),
    ),
    Row(
        "{} taken in and not yet answered, of all clients together: {} where the flag is not given. Over it "
        "RESOURCE_EXHAUSTED with RetryInfo or 429, or what still arrives is cut off",
        ("config:max_intake_bytes", "bounds.intake:LEAST_TOTAL_BYTES"),
        "memory",
        (
            "hostile/test_grpc_arrivals.py::test_unfinished_messages",
            "hostile/test_grpc_arrivals.py::test_what_is_not_answered_counts",
            "hostile/test_http_bodies.py::test_bodies_without_their_last_byte_have_a_bound",
            "hostile/test_websocket_sockets.py::test_waiting_questions_have_a_bound",
        ),
    ),
    Row(
        "{} of these for one connection, or one message where that is more",
        ("bounds.intake:LEAST_CONNECTION_BYTES",),
        "other connections' part of the memory",
        ("hostile/test_http_bodies.py::test_a_small_bound_is_kept_for_each_connection",),
    ),
    Row(
        "{} to {} gRPC messages are read at once: as many as a third of the intake holds, and half of these for a "
        "connection",
        ("rpc.arrivals:MIN_PLACES", "rpc.arrivals:MAX_PLACES"),
        "memory, which grpc grants when a read begins",
        ("unit/test_rpc_turns.py::test_a_connection_has_half_of_the_places",),
    ),
    Row(
        "{}, or {} while others wait: a gRPC message that is not here by then counts as a whole message in the intake",
        ("rpc.arrivals:GRACE_SECONDS", "rpc.arrivals:LEAST_GRACE_SECONDS"),
        "the places of those that send at once",
        ("hostile/test_grpc_arrivals.py::test_the_oldest_slow_message_of_the_greediest_makes_room",),
    ),
    Row(
        "{} for a gRPC message",
        ("rpc.arrivals:SLOW_SECONDS",),
        "memory and calls, from messages that never end",
        ("hostile/test_grpc_arrivals.py::test_a_call_whose_message_never_comes_is_ended",),
    ),
    Row(
        "{} for an HTTP body or a WebSocket message, and 1 s more for each {} that has come",
        ("http.arrival:ARRIVAL_SECONDS", "http.arrival:ARRIVAL_BYTES_PER_SECOND"),
        "memory, from bodies that never end",
        (
            "hostile/test_http_bodies.py::test_a_body_that_does_not_come_is_answered_408",
            "hostile/test_websocket_sockets.py::test_a_message_that_does_not_end_closes_the_socket",
        ),
    ),
    Row(
        "{} gRPC calls wait to be read (`--max-queue` where that is more), and {} of connections that send slowly, "
        "with {} of each; {} more wait to be refused, {} of them each {}",
        (
            "rpc.turns:MAX_WAITING",
            "rpc.turns:MAX_WAITING_SLOW",
            "rpc.listener:UNREAD_BYTES_PER_CALL",
            "rpc.refusals:MAX_PUT_OFF",
            "rpc.refusals:AT_ONCE",
            "rpc.refusals:EVERY_SECONDS",
        ),
        "memory",
        ("unit/test_rpc_turns.py::test_the_wait_is_bounded_and_keeps_nobody_out",),
    ),
    Row(
        "{} slow connections are remembered, each for {}",
        ("rpc.turns:MAX_SLOW", "rpc.turns:SLOW_FOR_SECONDS"),
        "memory",
        ("unit/test_rpc_turns.py::test_slow_connections_share_one_half",),
    ),
    Row(
        "{} in a chunk of a body on average, after the first {} chunks",
        ("http.wire.parser:LEAST_CHUNK_BYTES", "http.wire.parser:FREE_CHUNKS"),
        "the event loop",
        ("hostile/test_http_bodies.py::test_chunks_of_one_byte_are_refused",),
    ),
    Row(
        "{} fragments in a WebSocket message",
        ("http.wire.socket:MAX_FRAGMENTS",),
        "memory: an empty fragment is an object",
        ("hostile/test_websocket_sockets.py::test_empty_fragments_have_a_bound",),
    ),
    Row(
        "{} read from an HTTP connection at once, {} from a WebSocket, {} kept ready for TLS to read into, {} "
        "undecrypted",
        (
            "http.turns:READ_BYTES",
            "http.wire.socket:FRAMES_READ_BYTES",
            "http.runner:TLS_READ_BYTES",
            "http.wire.connection:TLS_BUFFER_BYTES",
        ),
        "the event loop and memory",
        ("unit/test_http_turns.py::test_much_work_leaves_the_loop_to_others",),
    ),
)

PARSING = (
    Row(
        "{} fields in a gRPC message, counted before it is parsed; a run of numbers is one",
        ("rpc.wire_scan:MAX_FIELDS",),
        "the event loop and memory",
        (
            "hostile/test_grpc_fields.py::test_nothing_that_a_message_holds_stops_the_loop",
            "hostile/test_grpc_fields.py::test_eight_at_once",
            "hostile/test_grpc_fields.py::test_mutated_messages",
        ),
    ),
    Row(
        "{} in a request of a service that takes no text",
        ("rpc.guard:SMALL_REQUEST_BYTES",),
        "memory and the event loop",
        ("hostile/test_grpc_watches.py::test_watches_of_large_names",),
    ),
    Row(
        "{} lists and objects, {} texts and {} values in a JSON body, counted before any is made",
        (
            "http.openai.structure:MAX_CONTAINERS",
            "http.openai.structure:MAX_STRINGS",
            "http.openai.structure:MAX_VALUES",
        ),
        "the event loop and memory",
        (
            "hostile/test_http_shapes.py::test_no_shape_holds_the_event_loop",
            "hostile/test_http_shapes.py::test_one_too_many_is_found",
            "hostile/test_http_fuzz.py::test_mutated_bodies",
        ),
    ),
    Row(
        "{} of work on what HTTP clients sent between two rests of the event loop, and one piece of work more",
        ("http.turns:SLICE_SECONDS",),
        "the pace of streams and health checks",
        (
            "hostile/test_http_shapes.py::test_the_pace_of_others",
            "hostile/test_http_connections.py::test_thousands_of_requests_at_once_on_one_connection",
        ),
    ),
    Row(
        "{} messages and {} parts in a chat over HTTP, {} messages over gRPC, {} entries in other lists",
        (
            "http.openai.bodies:MAX_MESSAGES",
            "http.openai.bodies:MAX_PARTS",
            "service.intake.chat:MAX_MESSAGES",
            "http.openai.bodies:MAX_ENTRIES",
        ),
        "rendering time",
        (
            "hostile/test_http_shapes.py::test_all_that_may_be_sent_passes",
            "unit/test_chat.py::test_bad_conversations_name_their_field",
            "unit/test_openai_parse.py::test_the_path_of_what_is_wrong",
        ),
    ),
    Row(
        "{} stop strings of {} characters, {} stop tokens, {} biases of at most ±{}, {} alternatives to a token",
        (
            "service.intake.validate:MAX_STOP_STRINGS",
            "service.intake.validate:MAX_STOP_STRING_CHARS",
            "service.intake.validate:MAX_STOP_TOKEN_IDS",
            "service.intake.validate:MAX_LOGIT_BIAS_ENTRIES",
            "service.intake.validate:MAX_LOGIT_BIAS",
            "service.intake.validate:MAX_TOP_LOGPROBS",
        ),
        "time for each token",
        ("unit/test_validate.py::test_ranges",),
    ),
    Row(
        "{} characters in a request id, {} in a cache salt, {} in arguments of a template; seeds up to {}",
        (
            "service.intake.validate:MAX_REQUEST_ID_CHARACTERS",
            "service.intake.validate:MAX_SALT_CHARACTERS",
            "service.intake.chat:MAX_TEMPLATE_ARGS_BYTES",
            "service.intake.validate:MAX_SEED",
        ),
        "memory and the log",
        (
            "unit/test_validate.py::test_ranges",
            "unit/test_chat.py::test_bad_template_arguments",
        ),
    ),
)

WAITING = (
    Row(
        "{} requests wait for a model, with {} tokens; {} run. One more gets RESOURCE_EXHAUSTED with RetryInfo, or 429",
        ("config:max_queue", "config:max_queue_tokens", "config:max_batch"),
        "waiting time and memory",
        (
            "integration/test_rpc_queue.py::test_a_full_queue_refuses_and_says_when_to_come_again",
            "integration/test_rpc_queue.py::test_a_queue_full_of_tokens_refuses_as_well",
        ),
    ),
    Row(
        "one place more for each {} of these, for the first requests of clients that have nothing waiting",
        ("schedule.places:RESERVED",),
        "clients from one that fills the queue",
        (
            "hostile/test_fairness.py::test_a_queue_full_of_one_clients_calls_takes_anothers",
            "hostile/test_fairness.py::test_a_thousand_waiting_calls_do_not_stand_before_anothers_first",
        ),
    ),
    Row(
        "{} and {} of one client; no limit when not given",
        ("config:client_rows", "config:client_waiting"),
        "rows and waiting places from one client",
        (
            "integration/test_rates.py::test_rows_are_limited_for_each_client",
            "integration/test_rates.py::test_waiting_places_are_limited_for_each_client",
        ),
    ),
    Row(
        "{} and {} of one client; no limit when not given. {} clients are remembered",
        ("config:client_requests_per_minute", "config:client_tokens_per_minute", "bounds.rates:MAX_CLIENTS"),
        "the device from one client",
        (
            "hostile/test_fairness.py::test_with_rates_each_client_has_its_share",
            "unit/test_bounds_rates.py::test_the_table_is_bounded",
        ),
    ),
    Row(
        "{} characters of a prompt for each token of the context, {} for a text of more than {}: counted before it is "
        "rendered or tokenized",
        (
            "service.intake.validate:MAX_CHARACTERS_PER_TOKEN",
            "service.intake.validate:LARGE_CHARACTERS_PER_TOKEN",
            "service.intake.validate:LARGE_CHARACTERS",
        ),
        "the threads that render and tokenize",
        (
            "integration/test_rpc_queue.py::test_a_prompt_far_past_the_context_is_not_even_tokenized",
            "unit/test_encode.py::test_a_chat_far_past_the_context_is_not_rendered",
            "hostile/test_templates_neighbours.py::test_large_chats_stop_nobody",
        ),
    ),
    Row(
        "{} tokens, or {} of text, in an answer of TokenizerService",
        ("service.intake.look_up:MAX_TOKENS", "service.intake.look_up:MAX_TEXT_BYTES"),
        "a thread, and the event loop that writes the answer",
        ("unit/test_encode.py::test_what_is_only_looked_up_is_bounded_too",),
    ),
    Row(
        "{} texts wait to be rendered or tokenized, of which {} short and {} long are worked on; {} long one of a "
        "client. Callers have turns; one that leaves ends its work",
        (
            "service.intake.turns:MAX_WAITING",
            "service.intake.turns:SHORT_AT_ONCE",
            "service.intake.turns:LONG_AT_ONCE",
            "service.intake.turns:EACH_LONG_AT_ONCE",
        ),
        "short chats from long ones",
        (
            "unit/test_turns.py::test_a_short_chat_does_not_wait_for_long_ones",
            "unit/test_turns.py::test_when_too_many_wait_the_one_with_most_is_refused",
            "hostile/test_templates_neighbours.py::test_renderings_end_with_their_clients",
        ),
    ),
    Row(
        "{} questions wait on a WebSocket",
        ("http.websocket.questions:MAX_WAITING_QUESTIONS",),
        "waiting places",
        ("hostile/test_websocket_sockets.py::test_a_question_too_many_is_refused_and_the_socket_goes_on",),
    ),
    Row(
        "{} in a frame between the server and an engine",
        ("engine.messages:MAX_FRAME_BYTES",),
        "memory of both processes",
        ("integration/test_hosting_messages.py::test_a_row_that_no_frame_can_hold_is_refused_before_it_waits",),
    ),
)

READING = (
    Row(
        "{}, or {} tokens, for a reader that is behind; then its call ends. Its connection ends {} later",
        (
            "config:slow_reader_seconds",
            "service.generation.call:MAX_UNREAD_TOKENS",
            "server:AFTER_SLOW_READER_SECONDS",
        ),
        "memory, and the batch from its slowest reader",
        (
            "proofs/test_slow_readers.py::test_a_reader_that_stops_is_ended_and_the_batch_never_waits",
            "proofs/test_slow_readers.py::test_a_reader_that_is_too_far_behind_is_ended",
        ),
    ),
    Row(
        "{} for an HTTP client that takes nothing of its answer",
        ("http.runner:WRITE_SECONDS",),
        "memory",
        ("hostile/test_http_connections.py::test_a_client_that_takes_no_answers_is_cut_off",),
    ),
    Row(
        "{} health watches, and {} of a connection; one more takes the place of the oldest of the connection that has "
        "the most",
        ("rpc.watchers:MAX_WATCHERS", "rpc.watchers:MAX_WATCHERS_PER_CONNECTION"),
        "memory, and other connections' watches",
        (
            "hostile/test_grpc_watches.py::test_many_watches_of_one_client_keep_nobody_out",
            "hostile/test_grpc_watches.py::test_a_connection_has_so_many_watches",
        ),
    ),
    Row(
        "{} characters in the name of a watched service that does not exist",
        ("rpc.health:MAX_NAME_CHARACTERS",),
        "memory",
        ("hostile/test_grpc_watches.py::test_names_are_bounded_and_escaped",),
    ),
    Row(
        "{} readers of the live page; one that takes nothing ends after {}",
        ("http.admin.events:MAX_WATCHERS", "http.admin.events:MAX_WRITE_SECONDS"),
        "memory and the event loop",
        ("integration/test_admin_events.py::test_too_many_watchers_are_refused",),
    ),
    Row(
        "{} models in a page of a list, {} running requests in the status, {} on the live page",
        ("rpc.models:MAX_PAGE_SIZE", "service.survey:MAX_RUNNING_SHOWN", "http.admin.events:MAX_RUNNING_SHOWN"),
        "the size of answers",
        ("integration/test_rpc_models.py::test_a_page_has_a_bounded_size",),
    ),
    Row(
        "{} characters of a client's text in an error on gRPC, {} over HTTP",
        ("rpc.status:MAX_TEXT_CHARACTERS", "http.openai.errors:MAX_TEXT_CHARACTERS"),
        "the size of trailers and answers",
        (
            "unit/test_status.py::test_details_stay_small_whatever_a_client_sent",
            "unit/test_openai_errors.py::test_texts_are_bounded_and_can_be_encoded",
        ),
    ),
)

LOG = (
    Row(
        "{} of log at once and {} a minute after it, of one kind {} and {}; at `--log-level debug` without a bound",
        (
            "observe.log_limit:ALL_BURST_BYTES",
            "observe.log_limit:ALL_MINUTE_BYTES",
            "observe.log_limit:KIND_BURST_BYTES",
            "observe.log_limit:KIND_MINUTE_BYTES",
        ),
        "the disk, and lines that matter from those that repeat",
        (
            "hostile/test_log_text.py::test_refusals_do_not_fill_the_log",
            "hostile/test_log_text.py::test_handshakes_that_fail_do_not_fill_the_log",
            "unit/test_logs.py::test_no_minute_has_more_than_the_bound",
        ),
    ),
    Row(
        "{} kinds of lines are told apart",
        ("observe.log_limit:MOST_KINDS",),
        "memory",
        ("unit/test_logs.py::test_the_kinds_that_are_known_are_bounded",),
    ),
    Row(
        "{} in a line of the log, {} in a traceback, {} in a line of an engine",
        ("observe.logs:MESSAGE_BYTES", "observe.logs:TRACE_BYTES", "engine.link.words:MOST_LINE_BYTES"),
        "the disk and terminals",
        (
            "unit/test_logs.py::test_a_record_is_bounded",
            "hostile/test_log_text.py::test_no_text_of_an_engine_breaks_the_log",
        ),
    ),
    Row(
        "{} tokens in a token file of {}; {} in a file of a certificate or key",
        ("auth.tokens:MAX_TOKENS", "auth.tokens:MAX_FILE_BYTES", "auth.tls:MAX_PEM_BYTES"),
        "the event loop, which reads them again",
        (
            "unit/test_auth_tokens.py::test_a_file_has_a_bounded_number_of_tokens",
            "unit/test_auth_tls.py::test_files_that_cannot_be_are_told_in_one_line",
        ),
    ),
)

TEMPLATES = (
    Row(
        "{} of the processor for a chat, {} to try a template at load; {} of memory",
        (
            "service.intake.templates.process:Limits|_field_defaults|render_seconds",
            "service.intake.templates.process:Limits|_field_defaults|probe_seconds",
            "service.intake.templates.process:Limits|_field_defaults|memory_bytes",
        ),
        "the server's process, and other models' chats",
        (
            "hostile/test_templates_limits.py::test_a_bomb_ends_at_its_limit",
            "hostile/test_templates_limits.py::test_a_bomb_that_waits_for_a_chat_ends_there",
            "hostile/test_templates_neighbours.py::test_chats_that_pass_a_limit_are_refused_alone",
        ),
    ),
    Row(
        "{} characters in a template, {} in the messages of a chat, {} in a rendered chat",
        (
            "service.intake.templates.child_template:MAX_TEMPLATE_CHARS",
            "service.intake.chat:MAX_CHAT_CHARS",
            "service.intake.templates.frames:MAX_RENDERED_CHARS",
        ),
        "memory",
        (
            "hostile/test_templates_limits.py::test_syntax_that_is_too_much_ends",
            "unit/test_template_child.py::test_frames_are_bounded_both_ways",
            "hostile/test_templates_mutated.py::test_mutated_templates_end",
        ),
    ),
    Row(
        "{} in a message from a template's process, {} descriptors of that process",
        ("service.intake.templates.frames:MAX_FRAME_BYTES", "service.intake.templates.limits:MAX_DESCRIPTORS"),
        "memory, and the server's files",
        ("unit/test_template_child.py::test_what_is_not_a_message_is_not_believed",),
    ),
)

FOLDERS = (
    Row(
        "{} of `config.json`, {} of `generation_config.json`, {} of `tokenizer_config.json`, {} of the index of "
        "weights",
        (
            "models.json_file:BOUNDS|config.json|most_bytes",
            "models.json_file:BOUNDS|generation_config.json|most_bytes",
            "models.json_file:BOUNDS|tokenizer_config.json|most_bytes",
            "models.json_file:BOUNDS|model.safetensors.index.json|most_bytes",
        ),
        "memory of the server",
        (
            "hostile/test_model_folders_fuzz.py::test_mutated_files_of_a_folder",
            "hostile/test_model_folders_load.py::test_a_folder_that_lies_is_a_model_that_has_failed",
        ),
    ),
    Row(
        "{} layers, {} tokens in a vocabulary, {} in a context, {} items in a list, {} characters in a text, {} "
        "levels, and no more weights than the files hold",
        (
            "models.config_ranges:MOST_LAYERS",
            "models.config_ranges:MOST_TOKENS",
            "models.config_ranges:MOST_CONTEXT_TOKENS",
            "models.config_ranges:MOST_LIST_ITEMS",
            "models.config_ranges:MOST_STRING_CHARACTERS",
            "models.config_ranges:MOST_DEPTH",
        ),
        "memory, and every number that is computed from the config",
        (
            "unit/test_models_config_ranges.py::test_a_value_out_of_range_is_refused_by_name",
            "unit/test_models_config_ranges.py::test_a_config_announces_no_more_than_the_weights_hold",
            "unit/test_models_config_ranges.py::test_deep_nesting_is_refused",
        ),
    ),
    Row(
        "{} of a header of safetensors with {} values",
        ("models.json_file:HEADER|most_bytes", "models.json_file:HEADER|most_values"),
        "memory of the server",
        ("unit/test_models_weights_header.py::test_a_header_with_more_values_than_it_may_have_is_not_parsed",),
    ),
    Row(
        "{} of a vocabulary's file, read in a process with limits; a text may grow {} times by its normalizer, in "
        "{} steps",
        (
            "models.tokenizer_trial:MOST_FILE_BYTES",
            "models.tokenizer_growth:MOST_GROWTH",
            "models.tokenizer_growth:MOST_STEPS",
        ),
        "memory and time of the server, where tokenizers work",
        (
            "hostile/test_model_folders_load.py::test_a_tokenizer_that_lies_is_a_model_that_has_failed",
            "unit/test_models_tokenizer_growth.py::test_one_long_replacement_is_enough",
        ),
    ),
    Row(
        "{} characters in a token of a GGUF file, {} tokens, {} merges of {} characters together",
        (
            "models.gguf.merges:MOST_TOKEN_CHARACTERS",
            "models.gguf.merges:MOST_TOKENS",
            "models.gguf.merges:MOST_MERGES",
            "models.gguf.merges:MOST_MERGED_CHARACTERS",
        ),
        "memory of the import, which is a process of its own",
        (
            "hostile/test_gguf_files.py::test_a_long_token_takes_no_memory",
            "unit/test_models_gguf_merges.py::test_more_merges_than_a_vocabulary_has_are_refused",
            "hostile/test_model_folders_fuzz.py::test_mutated_gguf_files",
        ),
    ),
    Row(
        "{} of a header of GGUF, {} pairs, {} tensors, {} items in lists",
        (
            "models.gguf.header:_MAX_HEADER_BYTES",
            "models.gguf.header:_MAX_PAIRS",
            "models.gguf.header:_MAX_TENSORS",
            "models.gguf.header:_MAX_LIST_ITEMS",
        ),
        "memory of the server",
        (
            "hostile/test_gguf_files.py::test_counts_above_the_bounds_are_refused_at_once",
            "hostile/test_gguf_files.py::test_a_list_that_is_longer_than_the_file_allocates_nothing",
        ),
    ),
    Row(
        "{} without a word from the import of a GGUF file",
        ("models.gguf.child:SILENT_SECONDS",),
        "the start of the server",
        ("hostile/test_gguf_files.py::test_an_import_that_tells_nothing_is_ended",),
    ),
)

SECTIONS: dict[str, tuple[Row, ...]] = {
    "Connections": CONNECTIONS,
    "What arrives": ARRIVING,
    "What is made of it": PARSING,
    "What waits and runs": WAITING,
    "What is read": READING,
    "The log and the operator's files": LOG,
    "Chat templates": TEMPLATES,
    "Model folders": FOLDERS,
}
