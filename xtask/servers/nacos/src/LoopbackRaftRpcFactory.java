import com.alipay.sofa.jraft.rpc.RpcServer;
import com.alipay.sofa.jraft.rpc.impl.GrpcRaftRpcFactory;
import com.alipay.sofa.jraft.rpc.impl.GrpcServer;
import com.alipay.sofa.jraft.util.Endpoint;
import com.alipay.sofa.jraft.util.SPI;
import com.google.protobuf.Message;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.util.MutableHandlerRegistry;
import java.net.InetSocketAddress;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/** jraft's own factory listens on every address; this one listens on the endpoint's. */
@SPI(priority = 100)
public final class LoopbackRaftRpcFactory extends GrpcRaftRpcFactory {
    private final Map<String, Message> messages = new ConcurrentHashMap<>();

    @Override
    public void registerProtobufSerializer(String className, Object... args) {
        super.registerProtobufSerializer(className, args);
        messages.put(className, (Message) args[0]);
    }

    @Override
    public RpcServer createRpcServer(Endpoint endpoint, ConfigHelper<RpcServer> helper) {
        MutableHandlerRegistry handlers = new MutableHandlerRegistry();
        RpcServer server = new GrpcServer(
                NettyServerBuilder.forAddress(new InetSocketAddress(endpoint.getIp(), endpoint.getPort()))
                        .fallbackHandlerRegistry(handlers).directExecutor().build(),
                handlers, messages, getMarshallerRegistry());
        if (helper != null) {
            helper.config(server);
        }
        return server;
    }
}
