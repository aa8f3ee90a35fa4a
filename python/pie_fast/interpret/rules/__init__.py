"""Where a feature fires, in words: rules, how they are mined, worded, measured and put to a test.

facts, conditions    what is known of a position, and what a rule may say of it
parts, ranking       which prompts mine, choose and report; how good a guess is
mining, rule         candidates, and the one that is chosen
wording, sentence    the rule as words
quality, control     FADE's and Delphi's measures of it, and what they are where nothing is to find
edits                prompts made to meet it

numpy only.
"""

from pie_fast.interpret.rules.rule import (
    HeldOut,
    Rule,
    mine_rule,
    strength_of,
    weights_of_positions,
)

__all__ = ["HeldOut", "Rule", "mine_rule", "strength_of", "weights_of_positions"]
