"""Checks of Services: who may answer for one, whose packets are translated, what an endpoints file may hold."""

from mutants.mutant import Mutant

TRANSLATION = "tests/unit/proxy/flow/test_translation.py"
SERVICES = "tests/unit/proxy/flow/test_services.py"
MAP = "tests/unit/proxy/drivers/test_service_map.py"
REWRITE = "tests/unit/proxy/packet/test_rewrite.py"

MUTANTS = [
    Mutant(
        "any pod answers any call",
        "proxy/session/calls.py",
        "anybody=call.rendezvous",
        "anybody=True",
        "tests/sim/test_rendezvous.py::test_where_calls_name_their_pod_nobody_else_may_answer",
    ),
    Mutant(
        "a Service whose endpoints are known is called",
        "proxy/flow/translation.py",
        "return address not in self._services.names and self._meets(address)",
        "return self._meets(address)",
        f"{TRANSLATION}::test_service_whose_endpoints_are_known_is_never_called",
    ),
    Mutant(
        "a foreign source opens flows",
        "proxy/outbound.py",
        "if way[1] in self._translation.addresses and way[0] in self._own:",
        "if way[1] in self._translation.addresses:",
        "tests/sim/test_services.py::test_packet_with_a_foreign_source_opens_no_flow",
    ),
    Mutant(
        "an error of anybody",
        "proxy/flow/flows.py",
        "self.find(way, now) if way.startswith(addresses(packet)) else None",
        "self.find(way, now)",
        f"{TRANSLATION}::test_error_about_a_flow_of_another_pod_is_not_translated",
    ),
    Mutant(
        "two flows with one name for their answers",
        "proxy/flow/translation.py",
        "return self._flows.find(self._answers(name, end), now) is not None",
        "return False",
        f"{TRANSLATION}::test_two_services_of_one_pod_do_not_share_its_answers",
    ),
    Mutant(
        "flows without bound",
        "proxy/flow/flows.py",
        "if len(self._flows) >= self._most:",
        "if False:",
        f"{TRANSLATION}::test_table_is_bounded_and_forgets_what_was_not_used_for_longest",
    ),
    Mutant(
        "a fragment's word for ever",
        "proxy/flow/flows.py",
        "if now >= ends:",
        "if not ends:",
        f"{TRANSLATION}::test_later_fragments_follow_the_first",
    ),
    Mutant(
        "Services of other projects",
        "proxy/flow/endpoints_file.py",
        'return _text(metadata, "namespace", f"{where}.metadata") == self._namespace',
        "return bool(metadata)",
        f"{SERVICES}::test_headless_external_and_foreign_services_are_not_heeded",
    ),
    Mutant(
        "new flows to pods that end",
        "proxy/flow/endpoints_file.py",
        "ready=ready and not terminating",
        "ready=ready",
        f"{SERVICES}::test_new_flows_go_to_the_ready_else_to_those_that_serve_while_they_end",
    ),
    Mutant(
        "endpoints without bound",
        "proxy/flow/endpoints_file.py",
        "if end not in served.all and len(served.all) >= MOST_ENDPOINTS:",
        "if False:",
        f"{SERVICES}::test_bounds_are_kept",
    ),
    Mutant(
        "a packet without its checksum",
        "proxy/packet/rewrite.py",
        "if not upper.is_later and _checksum_end(upper) > len(packet):",
        "if False:",
        f"{REWRITE}::test_packet_too_short_for_its_checksum_is_refused",
    ),
    Mutant(
        "any pod for any name, list or not",
        "proxy/drivers/service_map.py",
        'return self._knows_pods() and self._members.judge(address).source == "zone"',
        'return self._members.judge(address).source == "zone"',
        f"{MAP}::test_any_pod_may_answer_for_an_address_that_only_a_name_of_the_project_has",
    ),
    Mutant(
        "a Service sealed before its last pod",
        "proxy/drivers/service_map.py",
        "return bool(ends) and all(map(self._is_certified, ends))",
        "return any(map(self._is_certified, ends))",
        f"{MAP}::test_in_permissive_mode_a_virtual_address_is_one_once_all_who_serve_it_have_certificates",
    ),
    Mutant(
        "errors in clear about what is sealed",
        "proxy/netagent/filter.py",
        '            f"{marked(SEALED_MARK)} counter name {counter} drop",\n',
        "",
        "tests/netns/test_kernel_errors.py::test_a_router_outside_says_nothing_about_sealed_connections",
    ),
]
