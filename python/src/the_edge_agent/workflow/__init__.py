"""The workflow engine: agents written in YAML."""

from the_edge_agent.workflow.actions.modules import ActionsModuleError
from the_edge_agent.workflow.engine import YAMLEngine
from the_edge_agent.workflow.errors import ActionError, NodeError, Place, WorkflowError, WorkflowFileError
from the_edge_agent.workflow.graph import CompiledGraph

__all__ = [
    "ActionError",
    "ActionsModuleError",
    "CompiledGraph",
    "NodeError",
    "Place",
    "WorkflowError",
    "WorkflowFileError",
    "YAMLEngine",
]
