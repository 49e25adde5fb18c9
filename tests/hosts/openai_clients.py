"""Programs that speak OpenAI's APIs, each used as its documentation says.

Run with URL and key by the Python of `openai-clients.lock`: prints what each saw, by
client and feature, as JSON. What failed is the text of its error.
"""

import asyncio
import base64
import functools
import gc
import inspect
import json
import os
import ssl
import sys
import traceback
from collections.abc import Callable
from typing import Any

import openai
from pydantic import BaseModel

URL, KEY = sys.argv[1:3]
MODEL = "shop"
# Each client of each library would read the machine's certificates, which none needs here.
ssl.create_default_context = functools.cache(ssl.create_default_context)  # type: ignore[assignment]
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it fetches prices when it is imported


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def get_weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: Its name.
    """
    return f"sunny in {city}"


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


# Two by two pixels, red.
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGP8z8DAwMDAxMDAwMDAAAAN"
    "HQEDasKb6QAAAABJRU5ErkJggg=="
)
IMAGE = f"data:image/png;base64,{PNG}"


def user(text: str) -> dict[str, str]:
    """A message of the user."""
    return {"role": "user", "content": text}


LOOK: Any = {
    "role": "user",
    "content": [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": IMAGE}},
    ],
}
DIALOGUE: Any = [user("one"), {"role": "assistant", "content": "said"}, user("history")]


class OpenAI:
    """The official client: chat completions."""

    def __init__(self) -> None:
        self.client: Any = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0)
        self.chat: Any = self.client.chat.completions

    def text(self) -> Any:
        return self.chat.create(model=MODEL, messages=[user("hi")]).choices[0].message.content

    def stream(self) -> Any:
        chunks = self.chat.create(model=MODEL, messages=[user("hi there")], stream=True)
        return [each.choices[0].delta.content for each in chunks if each.choices[0].delta.content]

    def history(self) -> Any:
        return self.chat.create(model=MODEL, messages=DIALOGUE).choices[0].message.content

    def tools(self) -> Any:
        messages: list[Any] = [user("weather in Oslo and Rome")]
        made = self.chat.create(model=MODEL, messages=messages, tools=[WEATHER]).choices[0]
        assert made.finish_reason == "tool_calls", made
        messages.append(made.message)
        for each in made.message.tool_calls or []:
            result = get_weather(**json.loads(each.function.arguments))
            messages.append({"role": "tool", "tool_call_id": each.id, "content": result})
        return (
            self.chat.create(model=MODEL, messages=messages, tools=[WEATHER])
            .choices[0]
            .message.content
        )

    def tools_streamed(self) -> Any:
        messages: list[Any] = [user("weather in Oslo and Rome")]
        with self.chat.stream(model=MODEL, messages=messages, tools=[WEATHER]) as stream:
            made = stream.get_final_completion().choices[0]
        messages.append(made.message.model_dump(exclude_none=True))
        for each in made.message.tool_calls or []:
            result = get_weather(**each.function.parsed_arguments)
            messages.append({"role": "tool", "tool_call_id": each.id, "content": result})
        with self.chat.stream(model=MODEL, messages=messages, tools=[WEATHER]) as stream:
            return stream.get_final_completion().choices[0].message.content

    def structured(self) -> Any:
        made = self.chat.parse(model=MODEL, messages=[user("person")], response_format=Person)
        return made.choices[0].message.parsed

    def image(self) -> Any:
        return self.chat.create(model=MODEL, messages=[LOOK]).choices[0].message.content

    def usage(self) -> Any:
        used = self.chat.create(model=MODEL, messages=[user("hi")]).usage
        return used and used.total_tokens

    def error(self) -> Any:
        try:
            self.chat.create(model="none", messages=[user("hi")])
        except openai.NotFoundError as error:
            return error.code
        return None


class OpenAIResponses:
    """The official client: responses."""

    def __init__(self) -> None:
        self.client: Any = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0)
        self.responses: Any = self.client.responses
        self.tool = {"type": "function", **WEATHER["function"]}

    def text(self) -> Any:
        return self.responses.create(model=MODEL, input="hi").output_text

    def stream(self) -> Any:
        with self.responses.stream(model=MODEL, input="hi there") as stream:
            return [e.delta for e in stream if e.type == "response.output_text.delta"]

    def history(self) -> Any:
        first = self.responses.create(model=MODEL, input="one")
        return self.responses.create(
            model=MODEL, input="history", previous_response_id=first.id
        ).output_text

    def tools(self) -> Any:
        made = self.responses.create(
            model=MODEL, input="weather in Oslo and Rome", tools=[self.tool]
        )
        return self._return(made)

    def tools_streamed(self) -> Any:
        with self.responses.stream(
            model=MODEL, input="weather in Oslo and Rome", tools=[self.tool]
        ) as stream:
            return self._return(stream.get_final_response())

    def _return(self, made: Any) -> Any:
        results = [
            {
                "type": "function_call_output",
                "call_id": each.call_id,
                "output": get_weather(**json.loads(each.arguments)),
            }
            for each in made.output
            if each.type == "function_call"
        ]
        return self.responses.create(
            model=MODEL, input=results, previous_response_id=made.id, tools=[self.tool]
        ).output_text

    def structured(self) -> Any:
        return self.responses.parse(model=MODEL, input="person", text_format=Person).output_parsed

    def image(self) -> Any:
        parts = [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": IMAGE, "detail": "auto"},
        ]
        asked: Any = [{"role": "user", "content": parts}]
        return self.responses.create(model=MODEL, input=asked).output_text

    def usage(self) -> Any:
        used = self.responses.create(model=MODEL, input="hi").usage
        return used and used.total_tokens

    def error(self) -> Any:
        try:
            self.responses.create(model="none", input="hi")
        except openai.NotFoundError as error:
            return error.code
        return None


class Agents:
    """`openai-agents`, over one of the two APIs."""

    def __init__(self, api: str = "chat") -> None:
        import agents

        agents.set_tracing_disabled(True)
        self.client = client = openai.AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0)
        self.agents = agents
        kind = agents.OpenAIChatCompletionsModel if api == "chat" else agents.OpenAIResponsesModel
        self.model = kind(model=MODEL, openai_client=client)

    def _agent(self, **more: Any) -> Any:
        return self.agents.Agent(name="one", instructions="Be brief.", model=self.model, **more)

    async def text(self) -> Any:
        return (await self.agents.Runner.run(self._agent(), "hi")).final_output

    async def stream(self) -> Any:
        run = self.agents.Runner.run_streamed(self._agent(), "hi there")
        return [
            event.data.delta
            async for event in run.stream_events()
            if event.type == "raw_response_event"
            and event.data.type == "response.output_text.delta"
        ]

    async def history(self) -> Any:
        first = await self.agents.Runner.run(self._agent(), "one")
        entries = [*first.to_input_list(), user("history")]
        return (await self.agents.Runner.run(self._agent(), entries)).final_output

    async def tools(self) -> Any:
        agent = self._agent(tools=[self.agents.function_tool(get_weather)])
        return (await self.agents.Runner.run(agent, "weather in Oslo and Rome")).final_output

    async def tools_streamed(self) -> Any:
        agent = self._agent(tools=[self.agents.function_tool(get_weather)])
        run = self.agents.Runner.run_streamed(agent, "weather in Oslo and Rome")
        async for _ in run.stream_events():
            pass
        return run.final_output

    async def structured(self) -> Any:
        return (
            await self.agents.Runner.run(self._agent(output_type=Person), "person")
        ).final_output

    async def image(self) -> Any:
        parts = [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": IMAGE, "detail": "auto"},
        ]
        asked = [{"role": "user", "content": parts}]
        return (await self.agents.Runner.run(self._agent(), asked)).final_output

    async def usage(self) -> Any:
        run = await self.agents.Runner.run(self._agent(), "hi")
        return run.context_wrapper.usage.total_tokens


class AgentsResponses(Agents):
    """`openai-agents` over responses; it names the conversation, which has the history."""

    def __init__(self) -> None:
        super().__init__("responses")

    async def history(self) -> Any:
        conversation = await self.client.conversations.create()
        agent, run = self._agent(), self.agents.Runner.run
        await run(agent, "one", conversation_id=conversation.id)
        return (await run(agent, "history", conversation_id=conversation.id)).final_output


class LangChain:
    """LangChain's `ChatOpenAI`."""

    def __init__(self, **more: Any) -> None:
        from langchain_core.tools import tool
        from langchain_openai import ChatOpenAI

        self.chat = ChatOpenAI(model=MODEL, base_url=URL, api_key=KEY, max_retries=0, **more)
        self.tool = tool(get_weather)

    def text(self) -> Any:
        return self.chat.invoke("hi").text

    def stream(self) -> Any:
        return [each.text for each in self.chat.stream("hi there") if each.text]

    def history(self) -> Any:
        return self.chat.invoke([("user", "one"), ("assistant", "said"), ("user", "history")]).text

    def tools(self) -> Any:
        return self._tools(lambda chat, messages: chat.invoke(messages))

    def tools_streamed(self) -> Any:
        def streamed(chat: Any, messages: Any) -> Any:
            first, *others = chat.stream(messages)
            for each in others:
                first += each
            return first

        return self._tools(streamed)

    def _tools(self, ask: Callable[[Any, Any], Any]) -> Any:
        chat = self.chat.bind_tools([self.tool])
        messages: list[Any] = [("user", "weather in Oslo and Rome")]
        made = ask(chat, messages)
        messages.append(made)
        messages += [self.tool.invoke(each) for each in made.tool_calls]
        return ask(chat, messages).text

    def structured(self) -> Any:
        return self.chat.with_structured_output(Person).invoke("person")

    def structured_by_tool(self) -> Any:
        return self.chat.with_structured_output(Person, method="function_calling").invoke("person")

    def image(self) -> Any:
        return self.chat.invoke([LOOK]).text

    def usage(self) -> Any:
        return self.chat.invoke("hi").usage_metadata["total_tokens"]


class LangChainResponses(LangChain):
    """LangChain over responses."""

    def __init__(self) -> None:
        super().__init__(use_responses_api=True)


class LlamaIndex:
    """LlamaIndex' `OpenAILike`."""

    def __init__(self) -> None:
        from llama_index.core.llms import ChatMessage
        from llama_index.core.tools import FunctionTool
        from llama_index.llms.openai_like import OpenAILike

        self.message = ChatMessage
        self.tool = FunctionTool.from_defaults(get_weather)
        self.llm = OpenAILike(
            model=MODEL,
            api_base=URL,
            api_key=KEY,
            max_retries=0,
            is_chat_model=True,
            is_function_calling_model=True,
            should_use_structured_outputs=True,
        )

    def text(self) -> Any:
        return self.llm.chat([self.message(role="user", content="hi")]).message.content

    def stream(self) -> Any:
        asked = [self.message(role="user", content="hi there")]
        return [each.delta for each in self.llm.stream_chat(asked) if each.delta]

    def history(self) -> Any:
        asked = [self.message(**each) for each in DIALOGUE]
        return self.llm.chat(asked).message.content

    def tools(self) -> Any:
        asked = [self.message(role="user", content="weather in Oslo and Rome")]
        made = self.llm.chat_with_tools(
            [self.tool], chat_history=asked, allow_parallel_tool_calls=True
        )
        asked.append(made.message)
        asked += [
            self.message(
                role="tool",
                content=get_weather(**each.tool_kwargs),
                additional_kwargs={"tool_call_id": each.tool_id},
            )
            for each in self.llm.get_tool_calls_from_response(made)
        ]
        return self.llm.chat_with_tools([self.tool], chat_history=asked).message.content

    def structured(self) -> Any:
        from llama_index.core.prompts import PromptTemplate

        return self.llm.structured_predict(Person, PromptTemplate("person"))

    def image(self) -> Any:
        from llama_index.core.llms import ImageBlock, TextBlock

        image = ImageBlock(image=base64.b64decode(PNG), image_mimetype="image/png")
        asked = self.message(role="user", blocks=[TextBlock(text="look"), image])
        return self.llm.chat([asked]).message.content


class LiteLLM:
    """`litellm`."""

    def __init__(self) -> None:
        import litellm

        litellm.suppress_debug_info = True
        self.litellm = litellm
        self.common = {
            "model": f"openai/{MODEL}",
            "api_base": URL,
            "api_key": KEY,
            "max_retries": 0,
        }

    def _ask(self, messages: Any, **more: Any) -> Any:
        return self.litellm.completion(messages=messages, **self.common, **more)

    def text(self) -> Any:
        return self._ask([user("hi")]).choices[0].message.content

    def stream(self) -> Any:
        chunks = self._ask([user("hi there")], stream=True)
        return [each.choices[0].delta.content for each in chunks if each.choices[0].delta.content]

    def history(self) -> Any:
        return self._ask(DIALOGUE).choices[0].message.content

    def tools(self) -> Any:
        messages: list[Any] = [user("weather in Oslo and Rome")]
        made = self._ask(messages, tools=[WEATHER]).choices[0].message
        messages.append(made)
        for each in made.tool_calls:
            result = get_weather(**json.loads(each.function.arguments))
            messages.append({"role": "tool", "tool_call_id": each.id, "content": result})
        return self._ask(messages, tools=[WEATHER]).choices[0].message.content

    def structured(self) -> Any:
        made = self._ask([user("person")], response_format=Person).choices[0].message.content
        return Person.model_validate_json(made)

    def image(self) -> Any:
        return self._ask([LOOK]).choices[0].message.content

    def usage(self) -> Any:
        return self._ask([user("hi")]).usage.total_tokens


class LlamaIndexResponses:
    """LlamaIndex' `OpenAIResponses`."""

    def __init__(self) -> None:
        from llama_index.core.llms import ChatMessage
        from llama_index.core.tools import FunctionTool
        from llama_index.llms.openai import OpenAIResponses

        self.message = ChatMessage
        self.tool = FunctionTool.from_defaults(get_weather)
        self.llm = OpenAIResponses(
            model=MODEL,
            api_base=URL,
            api_key=KEY,
            max_retries=0,
            context_window=32_768,  # it has a table of OpenAI's models only
        )

    def text(self) -> Any:
        return self.llm.chat([self.message(role="user", content="hi")]).message.content

    def stream(self) -> Any:
        asked = [self.message(role="user", content="hi there")]
        return [each.delta for each in self.llm.stream_chat(asked) if each.delta]

    def history(self) -> Any:
        asked = [self.message(**each) for each in DIALOGUE]
        return self.llm.chat(asked).message.content

    def tools(self) -> Any:
        asked = [self.message(role="user", content="weather in Oslo and Rome")]
        made = self.llm.chat_with_tools(
            [self.tool], chat_history=asked, allow_parallel_tool_calls=True
        )
        asked.append(made.message)
        asked += [
            self.message(
                role="tool",
                content=get_weather(**each.tool_kwargs),
                additional_kwargs={"call_id": each.tool_id},
            )
            for each in self.llm.get_tool_calls_from_response(made)
        ]
        return self.llm.chat_with_tools([self.tool], chat_history=asked).message.content

    def structured(self) -> Any:
        from llama_index.core.prompts import PromptTemplate

        return self.llm.structured_predict(Person, PromptTemplate("person"))

    def image(self) -> Any:
        from llama_index.core.llms import ImageBlock, TextBlock

        image = ImageBlock(image=base64.b64decode(PNG), image_mimetype="image/png")
        asked = self.message(role="user", blocks=[TextBlock(text="look"), image])
        return self.llm.chat([asked]).message.content


class LiteLLMResponses:
    """`litellm` over responses."""

    def __init__(self) -> None:
        import litellm

        litellm.suppress_debug_info = True
        self.litellm = litellm
        self.tool = {"type": "function", **WEATHER["function"]}
        self.common = {
            "model": f"openai/{MODEL}",
            "api_base": URL,
            "api_key": KEY,
            "max_retries": 0,
        }

    def _ask(self, given: Any, **more: Any) -> Any:
        return self.litellm.responses(input=given, **self.common, **more)

    def text(self) -> Any:
        return self._ask("hi").output_text

    def stream(self) -> Any:
        events = self._ask("hi there", stream=True)
        return [each.delta for each in events if each.type == "response.output_text.delta"]

    def history(self) -> Any:
        first = self._ask("one")
        return self._ask("history", previous_response_id=first.id).output_text

    def tools(self) -> Any:
        made = self._ask("weather in Oslo and Rome", tools=[self.tool])
        results = [
            {
                "type": "function_call_output",
                "call_id": each.call_id,
                "output": get_weather(**json.loads(each.arguments)),
            }
            for each in made.output
            if each.type == "function_call"
        ]
        more = {"tools": [self.tool], "previous_response_id": made.id}
        return self._ask(results, **more).output_text

    def structured(self) -> Any:
        return Person.model_validate_json(self._ask("person", text_format=Person).output_text)

    def image(self) -> Any:
        parts = [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": IMAGE, "detail": "auto"},
        ]
        return self._ask([{"role": "user", "content": parts}]).output_text

    def usage(self) -> Any:
        return self._ask("hi").usage.total_tokens


class Instructor:
    """`instructor`, in two of its modes."""

    def __init__(self) -> None:
        import instructor

        self.instructor = instructor
        self.client = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0)

    def _person(self, mode: str) -> Any:
        patched = self.instructor.from_openai(self.client, mode=self.instructor.Mode[mode])
        return patched.chat.completions.create(
            model=MODEL, messages=[user("person")], response_model=Person, max_retries=0
        )

    def structured(self) -> Any:
        return self._person("JSON_SCHEMA")

    def structured_by_tool(self) -> Any:
        return self._person("TOOLS")


class PydanticAI:
    """`pydantic-ai`, over one of the two APIs."""

    def __init__(self, api: str = "chat") -> None:
        import pydantic_ai
        from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
        from pydantic_ai.providers.openai import OpenAIProvider

        kind = OpenAIChatModel if api == "chat" else OpenAIResponsesModel
        self.model = kind(MODEL, provider=OpenAIProvider(base_url=URL, api_key=KEY))
        self.library = pydantic_ai

    def _agent(self, **more: Any) -> Any:
        return self.library.Agent(self.model, instructions="Be brief.", **more)

    async def text(self) -> Any:
        return (await self._agent().run("hi")).output

    async def stream(self) -> Any:
        async with self._agent().run_stream("hi there") as run:
            return [each async for each in run.stream_text(delta=True, debounce_by=None)]

    async def history(self) -> Any:
        agent = self._agent()
        first = await agent.run("one")
        return (await agent.run("history", message_history=first.all_messages())).output

    async def tools(self) -> Any:
        return (await self._agent(tools=[get_weather]).run("weather in Oslo and Rome")).output

    async def structured(self) -> Any:
        native = self.library.NativeOutput(Person)
        return (await self._agent(output_type=native).run("person")).output

    async def structured_by_tool(self) -> Any:
        return (await self._agent(output_type=Person).run("person")).output

    async def image(self) -> Any:
        image = self.library.BinaryContent(base64.b64decode(PNG), media_type="image/png")
        return (await self._agent().run(["look", image])).output

    async def usage(self) -> Any:
        used = (await self._agent().run("hi")).usage
        return (used() if callable(used) else used).total_tokens


class PydanticAIResponses(PydanticAI):
    """`pydantic-ai` over responses."""

    def __init__(self) -> None:
        super().__init__("responses")


class Llm:
    """`llm`, by its Python interface."""

    def __init__(self) -> None:
        from llm.default_plugins.openai_models import Chat

        self.model = Chat(
            MODEL,
            model_name=MODEL,
            api_base=URL,
            supports_tools=True,
            supports_schema=True,
            vision=True,
        )
        self.model.key = KEY

    def text(self) -> Any:
        return self.model.prompt("hi", stream=False).text()

    def stream(self) -> Any:
        return [each for each in self.model.prompt("hi there", stream=True) if each]

    def history(self) -> Any:
        conversation = self.model.conversation()
        conversation.prompt("one", stream=False).text()
        return conversation.prompt("history", stream=False).text()

    def tools(self) -> Any:
        chain = self.model.chain("weather in Oslo and Rome", tools=[get_weather], stream=False)
        return chain.text()

    def structured(self) -> Any:
        return Person.model_validate_json(
            self.model.prompt("person", schema=Person, stream=False).text()
        )

    def image(self) -> Any:
        import llm

        image = llm.Attachment(content=base64.b64decode(PNG), type="image/png")
        return self.model.prompt("look", attachments=[image], stream=False).text()


CLIENTS: dict[str, type] = {
    "openai": OpenAI,
    "openai (responses)": OpenAIResponses,
    "openai-agents": Agents,
    "openai-agents (responses)": AgentsResponses,
    "langchain-openai": LangChain,
    "langchain-openai (responses)": LangChainResponses,
    "llama-index": LlamaIndex,
    "llama-index (responses)": LlamaIndexResponses,
    "litellm": LiteLLM,
    "litellm (responses)": LiteLLMResponses,
    "instructor": Instructor,
    "pydantic-ai": PydanticAI,
    "pydantic-ai (responses)": PydanticAIResponses,
    "llm": Llm,
}


async def _called(feature: Callable[[], Any]) -> dict[str, Any]:
    try:
        seen = feature()
        seen = await seen if inspect.isawaitable(seen) else seen
    except Exception as error:  # noqa: BLE001 - it is the result
        return {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    return {"seen": seen.model_dump() if isinstance(seen, BaseModel) else seen}


async def _all(names: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        client = CLIENTS[name]()
        features = [each for each in dir(client) if not each.startswith("_")]
        methods = {each: getattr(client, each) for each in features}
        found[name] = {
            each: await _called(method)
            for each, method in methods.items()
            if inspect.ismethod(method)
            and each in type(client).__dict__ | type(client).__base__.__dict__
        }
    return found


if __name__ == "__main__":
    gc.disable()  # or it looks again and again at what the clients import
    sys.stdout.write(json.dumps(asyncio.run(_all(sys.argv[3:] or list(CLIENTS)))))
    sys.stdout.flush()
    os._exit(0)  # to free, object by object, what the clients have imported takes a second
