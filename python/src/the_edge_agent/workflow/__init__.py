"""The workflow engine: agents written in YAML."""

from the_edge_agent.workflow.actions.modules import ActionsModuleError
from the_edge_agent.workflow.engine import YAMLEngine
from the_edge_agent.workflow.errors import ActionError, NodeError, Place, WorkflowError, WorkflowFileError
from the_edge_agent.workflow.graph import CompiledGraph
from the_edge_agent.workflow.model import END, START
from the_edge_agent.workflow.stategraph import StateGraph

__all__ = [
    "END",
    "START",
    "ActionError",
    "ActionsModuleError",
    "CompiledGraph",
    "NodeError",
    "Place",
    "StateGraph",
    "WorkflowError",
    "WorkflowFileError",
    "YAMLEngine",
]
