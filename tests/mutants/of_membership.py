"""Checks of who belongs, who may talk, and what a daemon may order."""

from mutants.mutant import Mutant

ORDERS = "tests/unit/proxy/netagent/test_orders.py"
DNS = "tests/unit/proxy/drivers/test_dns_proxy.py"
BOUNDS = "tests/unit/proxy/drivers/test_dns_bounds.py"
KERNEL = "tests/unit/proxy/drivers/test_kernel_sets.py"
POLICY = "tests/unit/proxy/flow/test_policy.py"
GOLDEN = (
    "tests/unit/proxy/netagent/test_golden.py::test_rules_routes_and_filter_are_the_reviewed_ones"
)

MUTANTS = [
    Mutant(
        "an open connection that is reset by what passes",
        "proxy/packet/refusal.py",
        "if passes and flags & (_SYN | _ACK) != _SYN:",
        "if False:",
        "tests/unit/proxy/packet/test_refusal.py"
        "::test_an_open_connection_is_not_ended_by_what_passes_and_one_that_begins_is",
    ),
    Mutant(
        "a restart that knows nobody yet",
        "proxy/drivers/project.py",
        "is Kind.UNKNOWN and not self.knows_pods():",
        "is Kind.UNKNOWN and False:",
        "tests/unit/proxy/drivers/test_project.py::test_an_address_waits_for_the_first_roster",
    ),
    Mutant(
        "an order names any address",
        "proxy/netagent/orders.py",
        "if address in self._never or is_special(network):",
        "if False:",
        f"{ORDERS}::test_no_address_can_be_named_that_is_no_other_pods",
    ),
    Mutant(
        "an order names a prefix",
        "proxy/netagent/orders.py",
        "found.append(ip_address(word))",
        "found.append(ip_address(word.split('/')[0]))",
        f"{ORDERS}::test_whatever_else_is_no_order",
    ),
    Mutant(
        "a bypass without leave",
        "proxy/netagent/orders.py",
        "if not settings.dns_bypass:",
        "if False:",
        f"{ORDERS}::test_strict_mode_gives_nothing_up",
    ),
    Mutant(
        "fresh in strict mode",
        "proxy/netagent/orders.py",
        "if settings.strict or settings.broken_glass:",
        "if settings.broken_glass:",
        f"{ORDERS}::test_strict_mode_gives_nothing_up",
    ),
    Mutant(
        "a member keeps its bypass",
        "proxy/netagent/orders.py",
        "if self._settings.dns_bypass:",
        "if False:",
        f"{ORDERS}::test_who_becomes_a_member_loses_the_bypass_in_the_same_transaction",
    ),
    Mutant(
        "members without bound",
        "proxy/netagent/orders.py",
        "if len(self._members.union(addresses)) > MOST_ELEMENTS:",
        "if False:",
        f"{ORDERS}::test_a_flood_of_members_ends_at_the_bound",
    ),
    Mutant(
        "an answer of any question",
        "proxy/dns/wire.py",
        "return answer_untrusted[HEADER.size : HEADER.size + len(question)] == question",
        "return True",
        f"{DNS}::test_forged_answers_are_counted_and_the_right_one_is_waited_for",
    ),
    Mutant(
        "an answer of any id",
        "proxy/dns/wire.py",
        "if theirs != number or",
        "if",
        f"{DNS}::test_forged_answers_are_counted_and_the_right_one_is_waited_for",
    ),
    Mutant(
        "an answer before it was heeded",
        "proxy/drivers/dns_proxy.py",
        "task.add_done_callback(done)",
        "pending.answer(data)",
        f"{DNS}::test_an_answer_waits_until_it_was_heeded",
    ),
    Mutant(
        "records beside the question",
        "proxy/dns/answers.py",
        "if rrset.name not in chain:",
        "if False:",
        "tests/unit/proxy/dns/test_answers.py::test_records_beside_the_question_do_not_count",
    ),
    Mutant(
        "a label with a dot as two",
        "proxy/dns/zone.py",
        'if "\\\\" in name:',
        "if False:",
        "tests/unit/proxy/dns/test_answers.py::test_a_dot_inside_a_label_makes_no_name_of_the_cluster",
    ),
    Mutant(
        "answers that wait without bound",
        "proxy/drivers/dns_proxy.py",
        "return len(self._pending) + len(self._tasks)",
        "return len(self._pending)",
        f"{BOUNDS}::test_answers_that_wait_to_be_heeded_are_bounded_and_none_is_let_out_for_it",
    ),
    Mutant(
        "an answer while the kernel is being told",
        "proxy/drivers/kernel_sets.py",
        "if self._turn.locked():",
        "if False:",
        f"{KERNEL}::test_what_is_on_its_way_to_the_kernel_is_not_there_yet",
    ),
    Mutant(
        "an order broken off and forgotten",
        "proxy/drivers/kernel_sets.py",
        "self._changed |= not done",
        "pass",
        f"{KERNEL}::test_an_order_that_was_broken_off_is_given_again",
    ),
    Mutant(
        "rules that let everything in",
        "proxy/inbound.py",
        "if not policy.incoming(session.peer.identity, packet, now):",
        "if False:",
        "tests/sim/test_policy.py::test_what_the_rules_refuse_is_told_to_the_application_and_does_not_arrive",
    ),
    Mutant(
        "rules that let everything out",
        "proxy/outbound.py",
        "if not policy.outgoing(session.peer.identity, packet, now):",
        "if False:",
        "tests/sim/test_policy.py::test_what_the_rules_refuse_is_told_to_the_application_and_does_not_arrive",
    ),
    Mutant(
        "a later fragment of anybody",
        "proxy/flow/policy.py",
        "return known is not None and known[0] and now < known[1]",
        "return True",
        f"{POLICY}::test_later_fragments_follow_the_first",
    ),
    Mutant(
        "an answer that nobody asked for",
        "proxy/flow/policy.py",
        "if not is_answer and self._may(peer, name[0], port, outgoing=outgoing):",
        "if True:",
        f"{POLICY}::test_an_echo_reply_passes_where_its_request_did",
    ),
    Mutant(
        "a source route past the filter",
        "proxy/netagent/filter.py",
        'f"{one} exists counter name refused_leaving drop"',
        'f"{one} exists accept"',
        GOLDEN,
    ),
    Mutant(
        "the session port of any address",
        "proxy/netagent/allowed.py",
        "{IP[one.version]} daddr {one} {whole[one.version]} udp dport",
        "{whole[one.version]} udp dport",
        GOLDEN,
    ),
]
