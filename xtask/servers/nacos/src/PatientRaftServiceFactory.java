import com.alipay.sofa.jraft.core.DefaultJRaftServiceFactory;
import com.alipay.sofa.jraft.entity.LogEntry;
import com.alipay.sofa.jraft.option.RaftOptions;
import com.alipay.sofa.jraft.storage.LogStorage;
import com.alipay.sofa.jraft.storage.impl.RocksDBLogStorage;
import com.alipay.sofa.jraft.util.SPI;
import java.util.List;

/**
 * Delays each group's first log entry. Nacos hands a raft group's node to its state machine only after starting it;
 * a lone server that elects itself before that gets a NullPointerException in NacosStateMachine.onLeaderStart.
 */
@SPI(priority = 100)
public final class PatientRaftServiceFactory extends DefaultJRaftServiceFactory {
    @Override
    public LogStorage createLogStorage(String uri, RaftOptions options) {
        return new RocksDBLogStorage(uri, options) {
            private boolean appended;

            @Override
            public int appendEntries(List<LogEntry> entries) {
                if (!appended) {
                    appended = true;
                    try {
                        Thread.sleep(100);
                    } catch (InterruptedException e) {
                        Thread.currentThread().interrupt();
                    }
                }
                return super.appendEntries(entries);
            }
        };
    }
}
